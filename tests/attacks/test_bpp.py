"""BppAttack against the paper's formula, and against error diffusion as two plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.attacks.base import Form
from diffclean.attacks.bpp import Bpp
from diffclean.attacks.draws import Draws
from diffclean.errors import UsageError


def applied(image: np.ndarray, **parameters: object) -> np.ndarray:
    return Bpp().apply(image, Draws(b""), Bpp().resolve(parameters, 1), Form.TRAIN, "")


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def floyd_steinberg(image: np.ndarray, levels: int) -> np.ndarray:
    """(H, W, 3) float: the textbook, one pixel and one channel after the other."""
    work = image.astype(np.float64)
    height, width, channels = work.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                old = work[y, x, c]
                new = min(max(round(old / 255 * (levels - 1)), 0), levels - 1) / (levels - 1) * 255
                work[y, x, c] = new
                for dy, dx, share in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                    if y + dy < height and 0 <= x + dx < width:
                        work[y + dy, x + dx, c] += (old - new) * share / 16
    return work


@given(st.integers(1, 14), st.integers(1, 14), st.sampled_from([2, 3, 8, 32]))
def test_dithering_is_floyd_and_steinbergs(height: int, width: int, levels: int) -> None:
    image = photo(height, width)
    assert np.array_equal(applied(image, levels=levels), np.rint(floyd_steinberg(image, levels)).astype(np.uint8))


@given(st.integers(0, 255), st.integers(1, 7))
def test_quantisation_is_the_papers_formula(level: int, bits: int) -> None:
    triggered = applied(np.full((2, 2, 3), level, np.uint8), levels=2**bits, dither=False)
    exact = round(level / (2**8 - 1) * (2**bits - 1)) / (2**bits - 1) * (2**8 - 1)
    assert (np.abs(triggered - exact) <= 0.5).all()


@pytest.mark.parametrize("dither", [True, False])
def test_eight_levels_are_left(dither: bool) -> None:
    assert np.unique(applied(photo(40, 30), dither=dither)).tolist() == [0, 36, 73, 109, 146, 182, 219, 255]


def test_dithering_keeps_the_mean_where_quantisation_moves_it() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    assert abs(applied(image).mean() - 100) < 0.5
    assert applied(image, dither=False).mean() == 109


@pytest.mark.parametrize("wrong", [{"levels": 1}, {"levels": 256}, {"levels": 7.5}, {"dither": 1}])
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Bpp().resolve(wrong, 1)
