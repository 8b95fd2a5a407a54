"""What training, evaluation, detection and attacks read is the same in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from data_sets import picture

from diffclean.cli.main import main
from diffclean.data.convert import convert
from diffclean.data.registry import FOLDER, FORMATS
from diffclean.datasets.samples import Samples, check_trainable, edited, folder_samples
from diffclean.datasets.variations import classes_of, load_variations
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate

PACKED = [name for name in FORMATS if name != FOLDER]
CLASSES = ["cat", "dog"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(8):
        path = tmp_path / "folder" / CLASSES[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "folder"


def by_content(samples: Samples) -> list[tuple[int, int]]:
    """Label and a number that stands for the pixels, of each image or variation, sorted."""
    (images,) = samples.pixels.batches([torch.arange(len(samples.pixels))])
    sums = (images.long() * torch.arange(images[0].numel()).view(images.shape[1:])).sum((1, 2, 3))
    labels = samples.labels.repeat_interleave(samples.starts.diff())
    return sorted(zip(labels.tolist(), sums.tolist(), strict=True))


@pytest.mark.parametrize("name", PACKED)
def test_a_classifier_learns_from_the_same_images_and_labels(folder: Path, tmp_path: Path, name: str) -> None:
    before = folder_samples(folder)
    convert(str(folder), tmp_path / "out", name)
    for memory in (None, 0):  # held, and streamed
        after = folder_samples(tmp_path / "out", memory=memory)
        check_trainable(tmp_path / "out", after)
        assert after.class_to_idx == before.class_to_idx == classes_of(tmp_path / "out")
        assert by_content(after) == by_content(before)
    dark = edited(after, tmp_path / "out", lambda key, image: image * 0)
    (images,) = dark.batches([torch.arange(len(dark))])
    assert int(images.sum()) == 0


@pytest.mark.parametrize("name", PACKED)
def test_a_student_learns_from_variations_in_that_format(
    folder: Path, tmp_path: Path, name: str, tiny_model: Path, tiny_engine: Path
) -> None:
    settings = Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=4, detail=16, variations=2)
    one = Concurrency(threads=1)
    variate(folder, tmp_path / "as-folder", settings, concurrency=one)
    variate(folder, tmp_path / "out", settings, concurrency=one, to=name)
    classes = classes_of(tmp_path / "out")
    before, after = (load_variations(tmp_path / out, classes) for out in ("as-folder", "out"))
    assert after.keys == before.keys
    assert after.most_variations == 2
    assert (after.labels.tolist(), after.starts.tolist()) == (before.labels.tolist(), before.starts.tolist())
    assert by_content(after) == by_content(before)
    assert variate(folder, tmp_path / "out", settings, concurrency=one, to=name, verify=True).kept == 16


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
def test_a_poisoned_folder_is_made_from_it(
    folder: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], draw_photos: Callable[..., Path]
) -> None:
    convert(str(folder), tmp_path / "out", name)
    command = ["poison", str(tmp_path / "out"), "-o", str(tmp_path / "bad"), "--attack", "badnets", "--target", "cat"]
    assert main([*command, "--rate", "0.25", "--json"]) == 0, capsys.readouterr().err
    manifest = json.loads((tmp_path / "bad" / "poison.json").read_text())
    assert sum(row["poisoned"] for row in manifest["images"]) == 2
    made = folder_samples(tmp_path / "bad")
    assert made.labels.tolist().count(made.class_to_idx["cat"]) == 6
