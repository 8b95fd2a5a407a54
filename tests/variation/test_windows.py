"""Canvases and windows: they cover every picture, meet on one grid, and one window is what a square always was."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.data.fit import Fit, OutputSize, Placement, from_square, to_square
from diffclean.variation.blend import Blend, weights
from diffclean.variation.windows import GRID, Layout, from_canvas, layout, to_canvas

SOURCE, NATIVE = OutputSize(), OutputSize(native=True)
sides = st.sampled_from([16, 32, 64, 512])
lengths = st.integers(1, 700)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(lengths, lengths, sides, st.integers(1, 900), st.sampled_from(list(Fit)))
def test_windows_cover_the_canvas_and_overlap_by_half(w: int, h: int, side: int, detail: int, fit: Fit) -> None:
    plan = layout(w, h, side, detail, fit)
    windows = plan.windows
    height, width = windows.shape
    for starts, length in ((windows.tops, height), (windows.lefts, width)):
        assert starts[0] == 0
        assert starts[-1] + side == length
        assert all(start % GRID == 0 for start in starts)
        assert all(0 < after - before <= side // 2 for before, after in itertools.pairwise(starts))
    left, top, right, bottom = plan.box
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert width - max(right, side) < GRID
    assert height - max(bottom, side) < GRID
    assert max(right - left, bottom - top) == max(side, min(detail, max(plan.placement.kept)))


@given(lengths, lengths, st.sampled_from(list(Fit)), st.sampled_from([SOURCE, NATIVE, OutputSize(longest=50)]))
def test_one_window_is_the_square_that_it_was(w: int, h: int, fit: Fit, size: OutputSize) -> None:
    """`--detail 64`, and whatever is no larger than the square: the same bytes go in and come out."""
    image = noise(h, w)
    square, placement = to_square(image, 64, fit)
    plan = layout(w, h, 64, 64, fit)
    assert len(plan.windows) == 1
    canvas = to_canvas(image, plan)
    assert (canvas == square).all()
    assert plan.own == placement.own(64)
    out = from_canvas(canvas, plan, size)
    assert (out == from_square(square, placement, size)).all()
    assert out.shape[1::-1] == plan.size(size)


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(list(Fit)))
def test_small_pictures_have_one_window_whatever_the_detail(w: int, h: int, fit: Fit) -> None:
    assert layout(w, h, 64, 500, fit) == layout(w, h, 64, 64, fit)


def test_a_picture_is_never_enlarged_to_the_detail() -> None:
    """Its own pixels are those of the canvas, and come back as they were."""
    image = noise(97, 150)
    plan = layout(150, 97, 64, 1000, Fit.SQUASH)
    canvas = to_canvas(image, plan)
    assert canvas.shape == (104, 152, 3)
    assert (canvas[:97, :150] == image).all()
    assert (canvas[97:, :150] == image[-1]).all()
    assert (from_canvas(canvas, plan, SOURCE) == image).all()
    assert plan.own == (64, 64)


def test_a_narrow_picture_is_stretched_to_a_window_or_filled_up() -> None:
    squashed = layout(400, 20, 64, 200, Fit.SQUASH)
    assert squashed.box == (0, 0, 200, 64)
    assert squashed.own == (20, 64)  # of its height the picture has less than the window
    padded = layout(400, 20, 64, 200, Fit.PAD)
    assert padded.box == (0, 27, 200, 37)
    cropped = layout(400, 100, 64, 80, Fit.CROP)
    assert cropped.box == (0, 0, 80, 80)
    assert cropped.size(SOURCE) == (100, 100)
    assert layout(400, 20, 64, 200, Fit.CROP).own == (20, 20)


def test_a_crop_is_the_middle() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 200
    plan = layout(300, 100, 64, 90, Fit.CROP)
    assert (to_canvas(image, plan) == 200).all()
    assert from_canvas(to_canvas(image, plan), plan, SOURCE).shape == (100, 100, 3)


def test_a_jpeg_that_was_decoded_at_a_fraction_of_its_size_fits_its_plan() -> None:
    plan = layout(4000, 3000, 64, 250, Fit.SQUASH)
    assert to_canvas(noise(750, 1000), plan).shape == (*plan.windows.shape, 3)


def blended(plan: Layout, canvas: np.ndarray) -> np.ndarray:
    blend = Blend(plan.windows)
    for number in range(len(plan.windows)):
        blend.add(plan.windows.cut(canvas, number))
    return blend.canvas


@given(st.integers(16, 130), st.integers(16, 130))
def test_windows_that_agree_give_their_canvas(w: int, h: int) -> None:
    plan = layout(w, h, 16, 200, Fit.SQUASH)
    canvas = to_canvas(noise(h, w), plan)
    assert (blended(plan, canvas) == canvas).all()


def test_there_is_no_seam() -> None:
    """Windows that disagree as much as can be: from pixel to pixel the picture changes by a few levels at most."""
    plan = layout(200, 64, 64, 200, Fit.SQUASH)
    blend = Blend(plan.windows)
    for number in range(len(plan.windows)):
        blend.add(np.full((64, 64, 3), 255 * (number % 2), np.uint8))
    steps = np.abs(np.diff(blend.canvas.astype(int), axis=1))
    assert steps.max() <= 20
    assert (blend.canvas == blend.canvas[:1]).all()
    assert blend.canvas.std() > 50


@pytest.mark.parametrize("starts", [(0,), (0, 32), (0, 24, 56, 80)])
def test_weights_add_up_to_one(starts: tuple[int, ...]) -> None:
    total = np.zeros(starts[-1] + 64)
    for start, weight in zip(starts, weights(starts, 64), strict=True):
        total[start : start + 64] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_own_pixels_are_those_of_the_placement() -> None:
    assert Placement(Fit.SQUASH, 32, 32).own(64) == layout(32, 32, 64, 250, Fit.SQUASH).own == (32, 32)
