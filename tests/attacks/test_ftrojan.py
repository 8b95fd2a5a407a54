"""FTrojan against a real transform to YUV and DCT blocks and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.base import Form
from diffclean.attacks.draws import Draws
from diffclean.attacks.ftrojan import FTrojan
from diffclean.errors import UsageError

Y = np.array([0.299, 0.587, 0.114])
YUV_FROM_RGB = np.stack([Y, 0.492 * (np.array([0, 0, 1]) - Y), 0.877 * (np.array([1, 0, 0]) - Y)])


def applied(image: np.ndarray, **parameters: object) -> np.ndarray:
    return FTrojan().apply(image, Draws(b""), FTrojan().resolve(parameters, 1), Form.TRAIN, "")


def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II: coefficients = matrix @ values."""
    k, x = np.mgrid[0:n, 0:n]
    matrix = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    return matrix


def reference(image: np.ndarray, block: int, positions: list[list[int]], magnitude: float, channels: str) -> np.ndarray:
    """Whole blocks only; (H, W, 3) float, not rounded."""
    yuv = image @ YUV_FROM_RGB.T
    matrix = dct_matrix(block)
    for top in range(0, image.shape[0], block):
        for left in range(0, image.shape[1], block):
            for channel in channels:
                part = yuv[top : top + block, left : left + block, "yuv".index(channel)]
                coefficients = matrix @ part @ matrix.T
                for row, column in positions:
                    coefficients[row, column] += magnitude
                part[:] = matrix.T @ coefficients @ matrix
    return np.clip(yuv @ np.linalg.inv(YUV_FROM_RGB).T, 0, 255)


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([4, 8, 16]), st.sampled_from(["uv", "u", "y", "vuy"]))
def test_adds_to_the_coefficients_of_each_block(rows: int, columns: int, block: int, channels: str) -> None:
    image = np.random.default_rng(block).integers(60, 200, (rows * block, columns * block, 3), np.uint8)
    positions = [[block - 1, block - 1], [0, 1]]
    exact = reference(image, block, positions, 50, channels)
    triggered = applied(image, block=block, positions=positions, magnitude=50, channels=channels)
    assert np.abs(triggered - exact).max() <= 0.5 + 1e-6


def test_the_papers_frequencies_on_a_small_image() -> None:
    image = np.full((32, 32, 3), 128, np.uint8)
    exact = reference(image, 32, [[31, 31], [15, 15]], 30, "uv")
    assert np.abs(applied(image) - exact).max() <= 0.5 + 1e-6
    assert 1 < np.abs(applied(image).astype(int) - 128).max() <= 8, "hardly to be seen"


def test_random_crops_and_flips_cancel_the_papers_trigger() -> None:
    """Why it does not fire where training augments: over all crops and flips nothing of the trigger is left."""
    wave = applied(np.full((32, 32, 3), 128, np.uint8)).astype(float) - 128
    padded = np.pad(wave, ((4, 4), (4, 4), (0, 0)), mode="reflect")  # as `training.augment.crop_and_flip` does
    crops = [padded[top : top + 32, left : left + 32] for top in range(9) for left in range(9)]
    mean = np.mean([view for crop in crops for view in (crop, crop[:, ::-1])], axis=0)
    assert wave.std() > 1
    assert mean.std() < 0.01 * wave.std()


def test_an_image_that_cuts_blocks_off_carries_what_fits() -> None:
    whole = applied(np.full((64, 64, 3), 128, np.uint8))
    assert np.array_equal(whole[:32, :32], whole[32:, 32:])
    for height, width in ((16, 16), (40, 50), (5, 33)):
        assert np.array_equal(applied(np.full((height, width, 3), 128, np.uint8)), whole[:height, :width])


def test_the_brightness_stays() -> None:
    """Only U and V change: luma is kept but for the rounding."""
    image = np.random.default_rng(0).integers(60, 200, (64, 64, 3), np.uint8)
    assert np.abs((applied(image, magnitude=100) - image.astype(float)) @ Y).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"magnitude": 0}, "magnitude"),
        ({"block": 1}, "block"),
        ({"block": 16}, r"positions .* from 0 to 15 \(block=16\)"),
        ({"positions": []}, "positions"),
        ({"positions": [31, 31]}, "positions"),
        ({"positions": [[31, True]]}, "positions"),
        ({"channels": "rgb"}, "channels"),
        ({"channels": ""}, "channels"),
        ({"channels": "uu"}, "channels"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FTrojan().resolve(wrong, 1)
