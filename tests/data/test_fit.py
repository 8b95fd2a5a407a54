from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffclean.data.fit import Fit, OutputSize, Placement, from_square, to_square
from diffclean.errors import UsageError

SIDES = st.one_of(st.integers(1, 90), st.sampled_from([1, 2, 500]))
SIZES = st.sampled_from([1, 8, 64])
SOURCE, NATIVE = OutputSize.parse("source"), OutputSize.parse("native")


@settings(max_examples=150)
@given(SIDES, SIDES, SIZES, st.sampled_from(list(Fit)), st.integers(0, 255))
def test_a_constant_image_comes_back_as_it_was(width: int, height: int, size: int, fit: Fit, grey: int) -> None:
    image = np.full((height, width, 3), (grey, 255 - grey, 7), np.uint8)
    square, placement = to_square(image, size, fit)
    assert square.shape == (size, size, 3)
    back = from_square(square, placement, SOURCE)
    side = min(width, height)
    assert back.shape == ((side, side, 3) if fit is Fit.CROP else image.shape)
    for pixels in (square, back):
        assert pixels.dtype == np.uint8
        assert (pixels == (grey, 255 - grey, 7)).all()


@settings(max_examples=150)
@given(SIDES, SIDES, st.sampled_from(list(Fit)), st.integers(1, 300))
def test_output_sizes(width: int, height: int, fit: Fit, longest: int) -> None:
    square, placement = to_square(np.zeros((height, width, 3), np.uint8), 16, fit)
    assert from_square(square, placement, NATIVE) is square
    out = from_square(square, placement, OutputSize.parse(str(longest)))
    assert max(out.shape[:2]) == longest
    if fit is Fit.CROP:
        assert out.shape[:2] == (longest, longest)
    else:
        assert abs(out.shape[1] / longest - width / max(width, height)) <= 1 / longest


@pytest.mark.parametrize("fit", list(Fit))
def test_a_square_of_the_models_own_size_is_untouched(fit: Fit) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    square, placement = to_square(image, 32, fit)
    np.testing.assert_array_equal(square, image)
    np.testing.assert_array_equal(from_square(square, placement, SOURCE), image)


@pytest.mark.parametrize(
    ("shape", "fit", "own"),
    [
        ((32, 32), Fit.SQUASH, (32, 32)),
        ((28, 48), Fit.SQUASH, (28, 48)),
        ((28, 48), Fit.CROP, (28, 28)),
        ((24, 48), Fit.PAD, (48, 48)),  # the picture has half of the square's height: its 24 rows lie on 32 of 64
        ((500, 40), Fit.SQUASH, (64, 40)),  # reduced down, enlarged across
        ((500, 375), Fit.PAD, (64, 64)),
    ],
)
def test_own_pixels_across_the_square(shape: tuple[int, int], fit: Fit, own: tuple[int, int]) -> None:
    _, placement = to_square(np.zeros((*shape, 3), np.uint8), 64, fit)
    assert placement.own(64) == own


def halves(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def test_pad_repeats_the_edge_and_is_cut_off() -> None:
    square, placement = to_square(halves(10, 40), 40, Fit.PAD)
    np.testing.assert_array_equal(square, halves(40, 40))
    square[:15] = 99  # whatever a model paints in the padding does not come out
    square[25:] = 99
    np.testing.assert_array_equal(from_square(square, placement, SOURCE), halves(10, 40))


def test_crop_keeps_the_centre_only() -> None:
    image = np.full((10, 30, 3), 50, np.uint8)
    image[:, 10:20] = 200
    square, placement = to_square(image, 10, Fit.CROP)
    assert (square == 200).all()
    assert from_square(square, placement, SOURCE).shape == (10, 10, 3)


def test_a_model_may_paint_another_size_than_it_sees() -> None:
    _, placement = to_square(np.zeros((20, 40, 3), np.uint8), 16, Fit.PAD)
    painted = np.full((64, 64, 3), 9, np.uint8)
    painted[16:48] = 100
    out = from_square(painted, placement, SOURCE)
    assert out.shape == (20, 40, 3)
    assert (out == 100).all()


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("shape", [(10, 30_000, 3), (30_000, 10, 3)])
def test_strips(shape: tuple[int, int, int], fit: Fit) -> None:
    square, placement = to_square(np.full(shape, 77, np.uint8), 64, fit)
    out = from_square(square, placement, SOURCE)
    assert out.shape == ((10, 10, 3) if fit is Fit.CROP else shape)
    assert (out == 77).all()


@pytest.mark.parametrize("text", ["", "0", "-5", "10001", "1e3", "64.0", "Source", "²", "99999999999999999999"])
def test_sizes_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="source, native, or a number"):
        OutputSize.parse(text)


@pytest.mark.parametrize("text", ["source", "native", "1", "10000"])
def test_a_size_reads_as_it_was_written(text: str) -> None:
    assert str(OutputSize.parse(text)) == text


def test_arrays_that_are_no_image() -> None:
    with pytest.raises(ValueError, match="uint8"):
        to_square(np.zeros((4, 4, 3), np.float32), 8, Fit.SQUASH)
    with pytest.raises(ValueError, match="uint8"):
        to_square(np.zeros((0, 4, 3), np.uint8), 8, Fit.SQUASH)
    with pytest.raises(ValueError, match="square"):
        from_square(np.zeros((4, 5, 3), np.uint8), Placement(Fit.SQUASH, 4, 4), SOURCE)
