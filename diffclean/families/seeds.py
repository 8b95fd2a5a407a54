"""The seeds and the noise of images.

A seed depends on the run's seed, the image's key and the variant, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from diffclean.data.keys import key_bytes

if TYPE_CHECKING:
    from torch import Tensor


def image_seed(run_seed: int, key: str, variant: int) -> int:
    """A 64-bit seed for one variation: BLAKE2b over the run's seed, the variant and the raw bytes of the key."""
    head = run_seed.to_bytes(8, "big") + variant.to_bytes(4, "big")
    digest = hashlib.blake2b(head + key_bytes(key), digest_size=8, person=b"diffclean-seed").digest()
    return int.from_bytes(digest, "big")


def window_seed(seed: int, number: int) -> int:
    """A 64-bit seed for one window of a variation with the seed `seed`; the first window has that seed itself."""
    if not number:
        return seed
    head = seed.to_bytes(8, "big") + number.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(head, digest_size=8, person=b"diffclean-window").digest(), "big")


def attempt_seed(seed: int, attempt: int) -> int:
    """A 64-bit seed for another attempt at a variation with the seed `seed`; attempt 0 has that seed itself."""
    if not attempt:
        return seed
    head = seed.to_bytes(8, "big") + attempt.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(head, digest_size=8, person=b"diffclean-again").digest(), "big")


def noise_for(seeds: Sequence[int], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Draw standard normal noise on the CPU, whatever the engine runs on, so that it is the same everywhere.

    Args:
        seeds: one seed for each image, unsigned 64 bit.
        shapes: the shapes for one image by name; the tensors are drawn in this order.

    Returns:
        (B, *shape) float32 tensors by name.
    """
    import torch

    noise = {name: torch.empty(len(seeds), *shape) for name, shape in shapes.items()}
    generator = torch.Generator()
    for index, seed in enumerate(seeds):
        generator.manual_seed(seed)
        for tensor in noise.values():
            tensor[index].normal_(generator=generator)
    return noise
