import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffclean.datasets.labelled import stored_classes
from diffclean.datasets.pixels import ImageSet
from diffclean.datasets.samples import edited, folder_samples
from diffclean.errors import DiffcleanError, UsageError


def images_of(pixels: ImageSet) -> torch.Tensor:
    """(N, 3, H, W) uint8."""
    return torch.cat(list(pixels.batches(torch.arange(len(pixels)).split(2))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate(("b", "a", "a/deep")):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (index, 100, 200)).save(tmp_path / "set" / name / "x.png")
    return tmp_path / "set"


def test_images_labels_and_keys_go_together(folder: Path) -> None:
    data = folder_samples(folder)
    assert images_of(data.pixels).shape == (3, 3, 6, 8)
    assert data.class_to_idx == {"a": 0, "b": 1}
    assert dict(zip(data.keys, data.labels.tolist(), strict=True)) == {"a/deep/x.png": 0, "a/x.png": 0, "b/x.png": 1}
    assert images_of(data.pixels)[:, 0, 0, 0].tolist() == [2, 1, 0]


def test_a_models_classes_come_first(folder: Path) -> None:
    data = folder_samples(folder, class_to_idx={"z": 0, "b": 1, "a": 2})
    assert data.labels.tolist() == [2, 2, 1]
    with pytest.raises(UsageError, match=r"(?s)not expected: b\. *\n?.*Expected: a, c"):
        folder_samples(folder, class_to_idx={"a": 0, "c": 1})


@pytest.mark.parametrize("name", ["run.json", "poison.json"])
def test_classes_stored_with_the_data_set(name: str, folder: Path) -> None:
    (folder / name).write_text(json.dumps({"class_to_idx": {"b": 0, "a": 1, "c": 2}}))
    assert folder_samples(folder).class_to_idx == {"b": 0, "a": 1, "c": 2}
    (folder / name).write_text("nonsense")
    with pytest.raises(DiffcleanError, match=f"{name} is damaged"):
        stored_classes(folder)


def test_sizes_that_differ_need_a_size(folder: Path) -> None:
    Image.new("RGB", (9, 6)).save(folder / "b" / "y.png")
    with pytest.raises(UsageError, match=r"(?s)b/y\.png is 9x6|b/y\.png has 9x6 px.*`size`"):
        folder_samples(folder)
    assert images_of(folder_samples(folder, (16, 20)).pixels).shape == (4, 3, 16, 20)


def test_edits_come_before_resizing(folder: Path) -> None:
    seen = []

    def edit(key: str, image: np.ndarray) -> np.ndarray:
        seen.append((key, image.shape))
        return np.full_like(image, 7)

    data = folder_samples(folder, (16, 16))
    changed = images_of(edited(data, folder, edit))
    assert sorted(seen) == [("a/deep/x.png", (6, 8, 3)), ("a/x.png", (6, 8, 3)), ("b/x.png", (6, 8, 3))]
    assert changed.shape == (3, 3, 16, 16)
    assert (changed == 7).all()
    assert not (images_of(data.pixels) == 7).any()


def test_what_cannot_be_read_is_listed_and_left_out(folder: Path) -> None:
    (folder / "a" / "a.png").write_bytes(b"nonsense")
    data = folder_samples(folder)
    assert list(data.failed) == ["a/a.png"]
    assert data.keys == ["a/deep/x.png", "a/x.png", "b/x.png"]
    assert len(data.pixels) == len(data.labels) == 3


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"nonsense")
    with pytest.raises(DiffcleanError, match="None of the 1 images"):
        folder_samples(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / "flat.png")
    with pytest.raises(DiffcleanError, match="no class folder"):
        folder_samples(tmp_path)


@pytest.mark.parametrize("text", ["[]", "7", "[" * 100_000, '{"class_to_idx": {"a": 1e999}}', '{"a": "\\ud800"}'])
def test_damaged_classes_beside_a_data_set_are_a_message(text: str, folder: Path) -> None:
    for name in ("run.json", "poison.json"):
        (folder / name).write_text(text)
        with pytest.raises(DiffcleanError, match=f"{name} is damaged"):
            stored_classes(folder)
        (folder / name).unlink()


def test_a_pipe_in_place_of_stored_classes_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "poison.json")
    assert stored_classes(folder) is None
