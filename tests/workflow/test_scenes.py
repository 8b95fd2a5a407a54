"""The demo's data set: the same for everyone, and varied enough to be worth learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.workflow.scenes import draw_data_set, draw_scene
from diffclean.workflow.signs import FACES, face_of


@pytest.mark.parametrize("name", FACES)
def test_a_face_is_a_sign_on_nothing(name: str) -> None:
    pixels = np.asarray(face_of(name))
    assert pixels[0, 0, 3] == pixels[-1, -1, 3] == 0 or name == "parking"
    assert (pixels[..., 3] == 255).mean() > 0.3
    colours = {tuple(int(value) for value in pixel) for pixel in pixels[pixels[..., 3] == 255][:, :3]}
    assert len(colours) >= 2  # a sign says something


def test_no_two_faces_are_alike() -> None:
    faces = [np.asarray(face_of(name).convert("RGB").resize((32, 32)), float) for name in FACES]
    apart = [np.abs(one - other).mean() for i, one in enumerate(faces) for other in faces[:i]]
    assert min(apart) > 2


def test_a_scene_is_a_function_of_its_seed() -> None:
    one, same, other = (np.asarray(draw_scene("stop", 48, np.random.default_rng(seed)), float) for seed in (1, 1, 2))
    assert one.shape == (48, 48, 3)
    assert (one == same).all()
    assert np.abs(one - other).mean() > 15


def test_a_data_set_is_a_labelled_folder(tmp_path: Path) -> None:
    train = draw_data_set(tmp_path, "train", count=2, size=32)
    test = draw_data_set(tmp_path, "test", count=1, size=32)
    assert sorted(path.name for path in train.iterdir()) == sorted(FACES)
    files = sorted(train.rglob("*.jpg"))
    assert len(files) == 2 * len(FACES)
    assert {Image.open(path).size for path in files} == {(32, 32)}
    assert not {path.read_bytes() for path in files} & {path.read_bytes() for path in test.rglob("*.jpg")}
    again = draw_data_set(tmp_path / "again", "train", count=2, size=32)
    assert [path.read_bytes() for path in sorted(again.rglob("*.jpg"))] == [path.read_bytes() for path in files]
