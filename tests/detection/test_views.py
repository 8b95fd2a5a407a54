"""What each view hides and what it shows, on triggers that are drawn here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffclean.data.decode import decode
from diffclean.detection.views import VIEWS


@pytest.fixture(scope="module")
def photographs(draw_photos: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """(16, 3, 32, 32) uint8: slopes and blobs with some texture."""
    folder = draw_photos(tmp_path_factory.mktemp("photos"), [f"{number}.png" for number in range(16)], 32, 32)
    images = torch.stack([torch.from_numpy(decode(path.read_bytes())).permute(2, 0, 1) for path in folder.iterdir()])
    noise = torch.Generator().manual_seed(0)
    fine, coarse = (torch.randn(16, 3, side, side, generator=noise) for side in (32, 8))
    texture = 10 * fine + 30 * coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (images + texture).clamp(0, 255).to(torch.uint8)


def _with(images: Tensor, change: Tensor) -> Tensor:
    return (images.float() * 0.7 + 40 + change).clamp(0, 255).to(torch.uint8)


def _change(name: str, images: Tensor, change: Tensor) -> float:
    """How much of the view a trigger changes: the root mean square of the change over that of the view."""
    plain, marked = (VIEWS[name](one) for one in (_with(images, torch.zeros(1)), _with(images, change)))
    return float((marked - plain).square().mean().sqrt() / plain.square().mean().sqrt())


def _wave(period: float) -> Tensor:
    return 25 * torch.sin(2 * math.pi * torch.arange(32) / period).expand(3, 32, 32)


CHECKER = 25 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1).float().expand(3, 32, 32)
SMOOTH = _wave(64)
CORNER = torch.zeros(3, 32, 32)
CORNER[:, -3:, -3:] = 200


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_finite_of_a_moderate_size_and_of_each_image_alone(name: str, photographs: Tensor) -> None:
    view = VIEWS[name](photographs)
    assert view.dtype == torch.float32
    assert view.ndim == 4
    assert len(view) == 16
    assert view.shape[2] <= 32
    assert view.shape[3] <= 32
    assert view.isfinite().all()
    assert 0.1 < float(view.square().mean().sqrt()) < 3
    torch.testing.assert_close(VIEWS[name](photographs[3:5]), view[3:5], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(16, 16), (33, 47)])
def test_a_view_takes_images_of_any_shape_and_flat_ones(name: str, shape: tuple[int, int]) -> None:
    view = VIEWS[name](torch.full((2, 3, *shape), 255, dtype=torch.uint8))
    assert view.isfinite().all()
    assert view.numel() > 0


@pytest.mark.parametrize(
    ("trigger", "hiding", "showing"),
    [
        (CHECKER, ["coarse-4", "coarse-8", "soft-edges"], ["pixels", "edges", "band-stop"]),
        (SMOOTH, ["edges", "soft-edges"], ["pixels", "coarse-4", "coarse-8", "band-stop"]),
        (_wave(8), ["coarse-8", "band-stop"], ["pixels", "soft-edges"]),
        (CORNER, ["centre"], ["pixels", "rim", "band-stop"]),
    ],
    ids=["checker", "smooth", "wave", "corner"],
)
def test_a_view_hides_what_it_says_and_shows_the_rest(
    trigger: Tensor, hiding: list[str], showing: list[str], photographs: Tensor
) -> None:
    hidden = {name: _change(name, photographs, trigger) for name in hiding}
    shown = {name: _change(name, photographs, trigger) for name in showing}
    assert max(hidden.values()) < 0.5 * min(shown.values()), (hidden, shown)


def test_a_corner_patch_is_cut_from_turned_pictures() -> None:
    """From most of them: a scale below one brings a little of the rim back."""
    images = torch.randint(0, 100, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[:, :, -3:, -3:] = 255
    view = VIEWS["turned"](images)
    white = VIEWS["pixels"](torch.full((1, 3, 1, 1), 200, dtype=torch.uint8)).max()
    assert (view.amax((1, 2, 3)) < white).float().mean() > 0.8


def test_centre_and_rim_show_each_pixel_once() -> None:
    images = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    whole, rim, centre = (VIEWS[name](images) for name in ("pixels", "rim", "centre"))
    assert torch.equal(whole[:, :, 8:24, 8:24], centre)
    seen = (rim == whole).all(1)[0]
    assert not seen[8:24, 8:24].any()
    seen[8:24, 8:24] = True
    assert seen.all()
