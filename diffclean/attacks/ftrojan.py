"""FTrojan: a trigger at two frequencies of the colour channels.

Wang, Yao, Xu, An, Tong, Wang: "An Invisible Black-Box Backdoor Attack Through Frequency Domain", ECCV 2022 (earlier:
"Backdoor Attack through Frequency Domain", arXiv 2111.10991).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check, is_integer
from diffclean.attacks.draws import Draws

RGB_PER_CHANNEL: dict[str, tuple[float, float, float]] = {
    "y": (1.0, 1.0, 1.0),
    "u": (0.0, -0.114 / 0.587 / 0.492, 1 / 0.492),
    "v": (1 / 0.877, -0.299 / 0.587 / 0.877, 0.0),
}
"""The R, G and B of one level of Y, U or V: Y = 0.299 R + 0.587 G + 0.114 B, U = 0.492 (B - Y), V = 0.877 (R - Y)
(ITU-R BT.601), solved for R, G and B."""


class FTrojan:
    """Adds `magnitude` to some coefficients of the DCT of each block of U and V.

    The transform is the orthonormal DCT-II on blocks that begin at the top left. The transform, the addition and the
    inverse are linear, so together they add `magnitude` times the cosines of those coefficients to the channel. This is
    computed in float64, with one rounding and clipping at the end. Blocks that extend beyond the image are cut off, so
    an image of any size carries the same frequencies.

    Parameters:
        magnitude: the number that is added to a coefficient, in grey levels.
        block: the side of a block in pixels.
        positions: [[row, column], ...] of the coefficients; the paper's are a middle and the highest frequency.
        channels: letters out of y, u and v.
    """

    name = "ftrojan"
    citation = "Wang et al. 2022, FTrojan, ECCV 2022, arXiv 2111.10991"
    like_corruptions = False
    labels = Labels.ALL_TO_ONE
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {
        "magnitude": 30,
        "block": 32,
        "positions": [[31, 31], [15, 15]],
        "channels": "uv",
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`. Nothing depends on the seed."""
        check = Check(self, parameters)
        check.number("magnitude", above=0, most=10_000)
        block, channels = check.values["block"], check.values["channels"]
        if check.integer("block", 2, 4096):
            holds = are_positions(check.values["positions"], block)
            check.that(holds, "positions", f"a list of [row, column], each from 0 to {block - 1} (block={block})")
        letters = isinstance(channels, str) and channels != "" and len(set(channels)) == len(channels)
        check.that(letters and set(channels) <= set("yuv"), "channels", "letters out of y, u and v, such as uv")
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. The trigger looks the same in training and testing, and is the same for every image."""
        height, width = image.shape[:2]
        block = parameters["block"]
        tile = parameters["magnitude"] * cosines(block, tuple(map(tuple, parameters["positions"])))
        wave = np.tile(tile, (-(-height // block), -(-width // block)))[:height, :width]
        color = np.sum([RGB_PER_CHANNEL[channel] for channel in parameters["channels"]], axis=0)
        return np.clip(np.rint(image + wave[:, :, None] * color), 0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def cosines(block: int, positions: tuple[tuple[int, int], ...]) -> NDArray[np.float64]:
    """(block, block): the sum of the orthonormal DCT-II's basis functions at `positions`; do not change the result."""
    place = (2 * np.arange(block) + 1) * np.pi / (2 * block)

    def one(frequency: int) -> NDArray[np.float64]:
        scale = np.sqrt((1 if frequency == 0 else 2) / block)
        wave: NDArray[np.float64] = scale * np.cos(frequency * place)
        return wave

    total: NDArray[np.float64] = np.sum([np.outer(one(row), one(column)) for row, column in positions], axis=0)
    return total


def are_positions(value: object, block: int) -> bool:
    """Whether it is a list of pairs of integers within a block."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(pair, list) and len(pair) == 2 for pair in value)
        and all(is_integer(index) and 0 <= index < block for pair in value for index in pair)
    )
