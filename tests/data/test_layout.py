"""What diffclean writes is a labelled data set to the libraries that people train with, as it stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffclean.data.atomic import Writer
from diffclean.data.encode import encode
from diffclean.data.folder import ImageFolder
from diffclean.data.journal import Journal, journal_path
from diffclean.data.keys import label_of, variation_name
from diffclean.data.lock import Lock
from diffclean.data.manifest import Row, write_manifest
from diffclean.data.run_record import RunRecord, open_run
from diffclean.data.shard import Shard

KEYS = ["cat/1.jpg", "cat/2 b.jpg", "dog/1.jpg", "dog/sub/2.jpg", "eel/\u00e9.jpg"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The output of a run and of a shard, with everything that lies in it while it is written and after a kill."""
    out = tmp_path / "out"
    classes = {"cat": 0, "dog": 1, "eel": 2}
    rows = [Row(key=key, output=variation_name(key, 0, "png"), label=label_of(key)) for key in KEYS]
    with Lock(out):
        open_run(out, RunRecord({"steps": 1}, classes))
        for number, row in enumerate(rows):
            Writer(out).write(row.output, encode(np.full((8, 8, 3), number * 40, np.uint8)))
        with Journal.open(journal_path(out)) as journal:
            journal.append(rows)
        write_manifest(out, rows, class_to_idx=classes)
    with Lock(out, "1-of-2"), Journal.open(journal_path(out, Shard(1, 2))):
        write_manifest(out, rows, class_to_idx=classes, shard=Shard(1, 2))
    (out / "cat/.diffclean-0123456789abcdef.part").write_bytes(b"half")
    return out


def test_only_classes_are_folders_and_only_variations_are_images(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["cat", "dog", "eel"]
    source = ImageFolder(out)
    assert [item.key for item in source.items()] == [variation_name(key, 0, "png") for key in KEYS]
    assert source.class_to_idx == {"cat": 0, "dog": 1, "eel": 2}


def test_torchvision(out: Path) -> None:
    from torchvision.datasets import ImageFolder as TorchvisionFolder

    found = TorchvisionFolder(str(out))
    assert found.class_to_idx == {"cat": 0, "dog": 1, "eel": 2}
    assert [(np.asarray(image)[0, 0, 0], label) for image, label in found] == [
        (0, 0),
        (40, 0),
        (80, 1),
        (120, 1),
        (160, 2),
    ]


def test_hugging_face_datasets(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    (out / "dog/sub/2_v00.png").rename(out / "dog/2_v00.png")  # it takes the innermost folder for the label
    found = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"), split="train")
    assert found.features["label"].names == ["cat", "dog", "eel"]
    assert set(found.features) == {"image", "label"}
    pairs = sorted((int(np.asarray(row["image"])[0, 0, 0]), row["label"]) for row in found)
    assert pairs == [(0, 0), (40, 0), (80, 1), (120, 1), (160, 2)]
