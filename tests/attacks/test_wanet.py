"""WaNet against torch's own bicubic upsampling and grid sampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import grid_sample, interpolate

from diffclean.attacks.base import Form
from diffclean.attacks.draws import Draws, image_draws, pattern_draws
from diffclean.attacks.wanet import WaNet, field
from diffclean.errors import UsageError


def applied(image: np.ndarray, form: Form = Form.TRAIN, key: str = "x", **parameters: object) -> np.ndarray:
    return WaNet().apply(image, image_draws(1, key), WaNet().resolve(parameters, 1), form, "")


def photo(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def reference(image: np.ndarray, k: int, s: float) -> torch.Tensor:
    """The paper's warp by torch, (H, W, 3), not rounded."""
    height, width = image.shape[:2]
    control = torch.from_numpy(2 * pattern_draws(1).uniform(k, k, 2) - 1).permute(2, 0, 1)[None]
    control = control / control.abs().mean()
    up = interpolate(control, (height, width), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    rows, columns = torch.linspace(-1, 1, height).double(), torch.linspace(-1, 1, width).double()
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    grid = torch.stack([x, y], -1) + s * up / torch.tensor([width, height])
    pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float64))
    return grid_sample(pixels, grid.clamp(-1, 1)[None], align_corners=True)[0].permute(1, 2, 0)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(2, 6), st.floats(0.1, 4))
def test_the_papers_warp(height: int, width: int, k: int, s: float) -> None:
    image = photo(height, width)
    exact = reference(image, k, s).numpy()
    assert np.abs(applied(image, k=k, s=s) - exact).max() <= 0.5 + 1e-3


def test_the_mean_displacement_is_half_of_s_pixels_whatever_the_size() -> None:
    for side in (32, 256):
        moved = np.abs(0.5 * field(4, 1, side, side)) / side * (side - 1) / 2
        assert 0.15 < moved.mean() < 0.35


def test_one_field_for_all_images_and_another_for_another_seed() -> None:
    image = photo(32, 32)
    assert np.array_equal(applied(image, key="a"), applied(image, key="b"))
    assert not np.array_equal(applied(image), applied(image, pattern_seed=2))


def test_covers_are_the_warp_with_noise_of_their_own() -> None:
    """On a ramp the level says where a pixel was taken from: noise moves it by at most half a pixel each way."""
    ramp = np.broadcast_to(8 * np.arange(32, dtype=np.uint8)[None, :, None], (32, 32, 3))
    warped, cover = (applied(ramp, form, s=1e-9) for form in (Form.TRAIN, Form.COVER))
    moved = (cover.astype(int) - warped)[:, 2:-2] / 8
    assert np.abs(moved).max() <= 0.5
    assert np.abs(moved).max() > 0.45
    assert abs(np.abs(moved).mean() - 0.25) < 0.02
    assert not np.array_equal(cover, applied(ramp, Form.COVER, key="other", s=1e-9))


def test_a_single_pixel_stays() -> None:
    image = photo(1, 1)
    assert np.array_equal(WaNet().apply(image, Draws(b""), WaNet().resolve({}, 1), Form.TRAIN, ""), image)


@pytest.mark.parametrize("wrong", [{"k": 1}, {"k": 2.5}, {"s": 0}, {"s": "x"}, {"pattern_seed": 1.5}])
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        WaNet().resolve(wrong, 1)
