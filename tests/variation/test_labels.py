"""`variate --labels`: an output that cannot be mistaken for clean labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import build
from diffclean.cli.main import main
from diffclean.data.classes import UNLABELLED
from diffclean.data.manifest import Status, read_manifest_classes, read_run_manifest
from diffclean.datasets.variations import load_variations
from diffclean.errors import DiffcleanError, ExitCode, UsageError
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate

Draw = Callable[..., Path]
KEYS = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(6)]
ONE = Concurrency(threads=1)


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "source", KEYS)


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=2, batch=4, detail=16)


def saved_teacher(path: Path, classes: list[str]) -> Path:
    torch.manual_seed(0)
    model = build("resnet8-cifar", len(classes), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()
    colours = torch.rand(64, 3, 1, 1).expand(64, 3, 16, 16)
    (last,) = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():  # as often one class as another
        logits = model(colours)
        last.weight.div_(logits.std(0)[:, None])
        last.bias.sub_(last.bias + (model(colours) - last.bias).mean(0))
    indices = {name: number for number, name in enumerate(classes)}
    checkpoints.save(path, model, "resnet8-cifar", indices, (16, 16), {})
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Random, with classes of its own; it has a different opinion of different pictures."""
    return saved_teacher(tmp_path / "t.pt", ["ape", "bee", "cat", "dog", "eel"])


def outputs(out: Path) -> dict[str, bytes]:
    found = [*out.rglob("*.png"), out / "manifest.parquet"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def test_kept_labels_are_said_to_be_suspect(source: Path, settings: Settings, tmp_path: Path) -> None:
    variate(source, tmp_path / "out", settings, concurrency=ONE)
    rows = read_run_manifest(tmp_path / "out/manifest.parquet")
    assert all(row.label == row.source_label == row.key[:3] for row in rows)
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["identity"]["labels"] == "keep"
    assert "variations of poisoned images are in the folder of the target class" in record["other"]["labels"]


def test_without_labels_there_is_no_class_to_train_on(
    source: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "dog/broken.png").write_text("no image")
    out = tmp_path / "out"
    report = variate(source, out, replace(settings, labels="none"), concurrency=ONE)
    assert (report.made, report.classes) == (12, 0)
    rows = read_run_manifest(out / "manifest.parquet")
    assert {row.label for row in rows} == {""}
    assert [row.source_label for row in rows] == [row.key[:3] for row in rows]
    made = [row for row in rows if row.status is Status.OK]
    assert {row.output for row in made} == {f"{UNLABELLED}/{key[:-4]}_v00.png" for key in KEYS}
    assert all((out / row.output).is_file() for row in made)
    assert read_manifest_classes(out / "manifest.parquet") == {}
    assert json.loads((out / "run.json").read_text())["class_to_idx"] == {}
    assert main(["train", str(out), "-o", str(tmp_path / "t.pt")]) == ExitCode.CANNOT
    assert "images without labels" in capsys.readouterr().err
    assert not (tmp_path / "t.pt").exists()
    # A student that learns from its teacher's answers needs none.
    assert load_variations(out, {"cat": 0, "dog": 1}, labelled=False).labels.tolist() == [-1] * 12
    with pytest.raises(DiffcleanError, match="images without labels"):
        load_variations(out, {"cat": 0, "dog": 1})
    assert variate(source, out, replace(settings, labels="none"), concurrency=ONE).kept == 12


def test_a_copy_of_the_folder_is_still_refused(source: Path, settings: Settings, tmp_path: Path) -> None:
    """The mark is the folder's name, which survives where `run.json` is left behind."""
    variate(source, tmp_path / "out", replace(settings, labels="none"), concurrency=ONE)
    (tmp_path / "out" / UNLABELLED).rename(tmp_path / "copy")
    (tmp_path / "data").mkdir()
    (tmp_path / "copy").rename(tmp_path / "data" / UNLABELLED)
    assert main(["train", str(tmp_path / "data"), "-o", str(tmp_path / "t.pt")]) == ExitCode.CANNOT


def test_a_teacher_says_what_the_variation_shows(
    source: Path, settings: Settings, tmp_path: Path, teacher: Path
) -> None:
    out = tmp_path / "out"
    settings = replace(settings, labels=str(teacher))
    variate(source, out, settings, concurrency=ONE)
    rows = read_run_manifest(out / "manifest.parquet")
    model = checkpoints.load(teacher)
    names = list(model.class_to_idx)
    for row in rows:
        image = torch.from_numpy(np.asarray(Image.open(out / row.output)).copy()).permute(2, 0, 1)[None].float() / 255
        small = torch.nn.functional.interpolate(image, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
        with torch.no_grad():
            assert row.label == names[int(model.model(small).argmax())]
        assert row.output == f"{row.label}/{row.key[:-4]}_v00.png"
        assert row.source_label == row.key[:3]
    assert len({row.label for row in rows}) > 1
    assert read_manifest_classes(out / "manifest.parquet") == model.class_to_idx
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["labels"] == hashlib.sha256(teacher.read_bytes()).hexdigest()
    assert "classifier's answer to the variation" in record["other"]["labels"]
    assert variate(source, out, settings, concurrency=ONE).kept == 12
    variate(source, tmp_path / "two", settings, concurrency=Concurrency(2, threads=1))
    assert outputs(tmp_path / "two") == outputs(out)


@pytest.mark.parametrize(
    "name",
    ["../../out", "a/b", "..", ".hidden", "", "CAT", "run.json", "manifest.parquet", "journal-1-of-2.jsonl", "a\0"],
)
def test_a_class_that_leads_elsewhere_is_refused(source: Path, settings: Settings, tmp_path: Path, name: str) -> None:
    """The teacher's file names the folders."""
    evil = saved_teacher(tmp_path / "evil.pt", ["cat", name])
    with pytest.raises(DiffcleanError):
        variate(source, tmp_path / "out", replace(settings, labels=str(evil)), concurrency=ONE)
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_cannot_be_used_is_refused_before_any_work(
    source: Path, settings: Settings, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "bare.pt")
    with pytest.raises(DiffcleanError, match=r"nope\.pt"):
        variate(source, tmp_path / "out", replace(settings, labels=str(tmp_path / "nope.pt")), concurrency=ONE)
    with pytest.raises(UsageError, match="does not say which network") as caught:
        variate(source, tmp_path / "out", replace(settings, labels=str(tmp_path / "bare.pt")), concurrency=ONE)
    assert "keep, none, or a classifier" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_last_lines_say_what_the_labels_are(
    source: Path, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], draw_photos: Draw
) -> None:
    options = ["--engine", settings.engine, "--runtime", "onnxruntime", "--steps", "2", "--batch", "4"]
    flat = draw_photos(tmp_path / "flat", ["a.png"])
    for data, more, said in (
        (source, [], "as suspect as the source"),
        (source, ["--labels", "none"], "The output has no labels"),
        (flat, [], ""),
    ):
        out = tmp_path / f"out-{data.name}-{len(more)}"
        assert main(["variate", str(data), "-o", str(out), "--json", *options, *more]) == ExitCode.DONE
        captured = capsys.readouterr()
        labels = json.loads(captured.out)["labels"]
        assert said in labels
        assert labels in captured.err
        assert bool(labels) == bool(said)
