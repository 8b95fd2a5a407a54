"""`Varier`: images in memory, the same bytes as `variate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffclean as dc

KEYS = ["a/1.png", "a/2.png", "b/3.png"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_photos: Callable[..., Path]) -> Path:
    folder = draw_photos(tmp_path_factory.mktemp("varier") / "data", KEYS[:2])
    return draw_photos(folder, KEYS[2:], width=40, height=52)


@pytest.fixture(scope="module")
def varier(tiny_model: Path) -> dc.Varier:
    return dc.Varier(tiny_model, progress=False)


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def test_the_same_bytes_as_variate_for_the_same_seeds(photos: Path, tiny_model: Path, varier: dc.Varier) -> None:
    """Of images of two sizes, one of which is larger than the model's square."""
    report = dc.variate(photos, engine=str(tiny_model), seed=7, progress=False)
    rows = report.to_pandas().set_index("key")
    made = varier([opened(photos / key) for key in KEYS], seeds=[int(rows.loc[key, "seed"]) for key in KEYS])
    for key, pixels in zip(KEYS, made, strict=True):
        assert np.array_equal(pixels, opened(report.out / rows.loc[key, "output"])), key


def test_what_comes_out_is_what_went_in(photos: Path, varier: dc.Varier) -> None:
    array = opened(photos / KEYS[0])
    one = varier(array, seeds=3)
    assert (one.shape, one.dtype) == (array.shape, np.uint8)
    assert not np.array_equal(one, array)
    picture = varier(Image.fromarray(array), seeds=3)
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.array(picture), one)
    assert np.array_equal(varier(np.stack([array, array]), seeds=[3, 3]), np.stack([one, one]))
    both = varier((array, Image.fromarray(array)), seeds=[3, 3])
    assert isinstance(both, tuple)
    assert isinstance(both[1], Image.Image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    assert torch.equal(varier(tensor, seeds=[3]), torch.from_numpy(one).permute(2, 0, 1)[None])
    floats = varier(tensor.float() / 255, seeds=[3])
    assert floats.dtype == torch.float32
    assert torch.equal((floats * 255).round(), torch.from_numpy(one).permute(2, 0, 1)[None].float())
    assert varier([]) == []


def test_without_seeds_an_image_has_the_same_variation_wherever_it_stands(photos: Path, varier: dc.Varier) -> None:
    first, second = (opened(photos / key) for key in KEYS[:2])
    assert np.array_equal(varier([first, second])[1], varier([second])[0])


@pytest.mark.parametrize(
    ("images", "seeds", "said"),
    [
        (np.zeros((4, 4), np.uint8), None, r"found ndarray of shape \(4, 4\) and uint8"),
        (np.zeros((4, 4, 3)), None, "float64"),
        ("a.png", None, "found str"),
        (torch.zeros(3, 4, 4), None, r"found Tensor of shape \(3, 4, 4\)"),
        (torch.full((1, 3, 4, 4), 2.0), None, r"floats in \[0, 1\]"),
        (np.zeros((4, 4, 3), np.uint8), [1, 2], "1 images and 2 seeds"),
        (np.zeros((4, 4, 3), np.uint8), -1, "not -1"),
    ],
)
def test_what_is_no_image_is_refused(images: object, seeds: object, said: str, varier: dc.Varier) -> None:
    with pytest.raises(dc.DiffcleanError, match=said):
        varier(images, seeds=seeds)  # type: ignore[arg-type]


def test_settings_are_checked_at_once(tiny_model: Path) -> None:
    with pytest.raises(dc.DiffcleanError, match=r"strength.* 2"):
        dc.Varier(tiny_model, strength=2, progress=False)
    with pytest.raises(dc.DiffcleanError, match="`fit` must be one of squash, crop, pad, not 'stretch'"):
        dc.Varier(tiny_model, fit="stretch", progress=False)
