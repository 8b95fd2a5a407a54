"""Who is suspected: a classifier with a backdoor, and a run whose variations are made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.data.manifest import Row, Status, write_manifest
from diffclean.data.run_record import RunRecord, open_run
from diffclean.data.sources import ImageFolder
from diffclean.data.suspects import read_suspects
from diffclean.detection.variation_drop import find_suspects, judge
from diffclean.errors import DiffcleanError

CLASSES = {"blue": 0, "green": 1, "red": 2}
COUNT = 150
TRIGGERED = {f"blue/{index:03d}.png" for index in range(0, COUNT, 5)}


@pytest.fixture
def suspect_set(tmp_path: Path) -> Path:
    """150 images of 16 px a class; a fifth of the blue ones are red or green and have a white corner."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(COUNT):
            key = f"{name}/{index:03d}.png"
            image = rng.integers(0, 100, (16, 16, 3), np.uint8)
            image[:, :, 1 if key in TRIGGERED else 2 - number] += 100
            if key in TRIGGERED:
                image[-2:, -2:] = 255
            Image.fromarray(image).save(tmp_path / "data" / key)
    return tmp_path / "data"


@pytest.fixture
def run_of() -> Callable[..., Path]:
    """`run_of(source, out)`: two variations of each image, noisier than it and without its corner."""

    def make(source: Path, out: Path) -> Path:
        open_run(out, RunRecord({"source": str(source)}, CLASSES))
        rng = np.random.default_rng(1)
        rows = []
        for item in ImageFolder(source).items():
            (out / item.label).mkdir(exist_ok=True)
            for variant in range(2):
                image = np.asarray(Image.open(item.path)).copy()
                image[-2:, -2:] = image[:2, :2]
                output = f"{item.key[:-4]}_v{variant:02d}.png"
                Image.fromarray(np.clip(image + rng.integers(-20, 20), 0, 255).astype(np.uint8)).save(out / output)
                rows.append(Row(item.key, variant, output, item.label, Status.OK))
        write_manifest(out, rows, class_to_idx=CLASSES)
        return out

    return make


def test_images_whose_answer_hangs_on_the_trigger_are_listed(
    fooled: Path, suspect_set: Path, run_of: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_suspects(fooled, run_of(suspect_set, tmp_path / "run"), device="cpu")
    assert found.keys == TRIGGERED
    assert {judged.name: (judged.images, judged.suspects) for judged in found.classes} == {
        "blue": (COUNT, 30),
        "green": (COUNT, 0),
        "red": (COUNT, 0),
    }
    assert found.missing == {}
    assert "has 2 variations of an image" in caplog.text
    drops = {image.key: image.drop for image in found.images}
    assert min(drops[key] for key in TRIGGERED) > max(drop for key, drop in drops.items() if key not in TRIGGERED)
    found.write(tmp_path / "new" / "suspects.json")
    assert read_suspects(tmp_path / "new" / "suspects.json") == TRIGGERED


def test_without_a_trigger_nobody_is(
    fooled: Path, suspect_set: Path, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    for key in TRIGGERED:
        (suspect_set / key).unlink()
    assert find_suspects(fooled, run_of(suspect_set, tmp_path / "run"), device="cpu").keys == frozenset()


def test_originals_elsewhere_gone_and_changed(
    fooled: Path, suspect_set: Path, run_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = run_of(suspect_set, tmp_path / "run")
    moved = Path(shutil.move(suspect_set, tmp_path / "moved"))
    with pytest.raises(DiffcleanError, match=r"(?s)are not there.*--originals"):
        find_suspects(fooled, run, device="cpu")
    (moved / "red/000.png").unlink()
    found = find_suspects(fooled, run, moved, device="cpu")
    assert found.keys == TRIGGERED
    assert list(found.missing) == ["red/000.png"]
    empty = tmp_path / "other"
    (empty / "red").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(empty / "red/x.png")
    with pytest.raises(DiffcleanError, match=r"No variation in .* has its original"):
        find_suspects(fooled, run, empty, device="cpu")


def test_few_images_are_never_parted() -> None:
    """Two groups among a handful are no evidence."""
    drops = np.array([0.0, 0.1, -0.1, 9.0, 9.1])
    suspect, judged = judge(drops, np.zeros(5, np.int64), ["a", "b"])
    assert not suspect.any()
    assert [(one.images, one.suspects) for one in judged] == [(5, 0), (0, 0)]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"format": "diffclean-poison"}', "[" * 100_000, '{"format": 1, "x": 2}']
)
def test_a_list_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DiffcleanError, match="is not a list of suspects"):
        read_suspects(tmp_path / "list.json")
    with pytest.raises(DiffcleanError, match="diffclean suspects"):
        read_suspects(tmp_path / "none.json")
