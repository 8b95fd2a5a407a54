"""A variation run against its source: what `evaluate MODEL RUN` says, on a run whose variations are made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffclean.attacks.manifest import read_poison_manifest
from diffclean.attacks.poison import poison
from diffclean.data.folder import ImageFolder
from diffclean.data.manifest import Row, Status, write_manifest
from diffclean.data.run_record import RunRecord, open_run
from diffclean.errors import DiffcleanError
from diffclean.evaluation.variation_run import evaluate_run

CLASSES = {"blue": 0, "green": 1, "red": 2}
WHITE = {"kind": "white", "size": 4}
Change = Callable[[np.ndarray, str], np.ndarray]


def varied(source: Path, run: Path, change: Change) -> Path:
    """A run whose variations are `change(image, key)`."""
    open_run(run, RunRecord({}, CLASSES, source=str(source)))
    rows = []
    for item in ImageFolder(source).items():
        output = f"{item.key.rpartition('.')[0]}_v00.png"
        (run / output).parent.mkdir(exist_ok=True)
        Image.fromarray(change(np.asarray(Image.open(item.path)), item.key)).save(run / output)
        rows.append(Row(item.key, 0, output, item.label, Status.OK))
    write_manifest(run, rows, class_to_idx=CLASSES)
    return run


def without_corner(image: np.ndarray, key: str) -> np.ndarray:
    image = image.copy()
    image[-4:, -4:] = image[:4, :4]
    return image


def test_a_run_that_keeps_everything(fooled: Path, colours: Path, tmp_path: Path) -> None:
    result = evaluate_run(fooled, varied(colours, tmp_path / "run", lambda image, key: image), device="cpu")
    assert result.images == 12
    assert result.label_preservation.preservation == 1
    assert result.trigger_survival is None


def test_labels_that_are_lost_are_counted(fooled: Path, colours: Path, tmp_path: Path) -> None:
    def lose_red(image: np.ndarray, key: str) -> np.ndarray:
        return image[:, :, ::-1] if key.startswith("red/") else image  # red becomes blue

    result = evaluate_run(fooled, varied(colours, tmp_path / "run", lose_red), device="cpu")
    assert result.label_preservation.preservation == pytest.approx(8 / 12)


@pytest.mark.parametrize(("change", "survival"), [(lambda image, key: image, 1.0), (without_corner, 0.0)])
def test_triggers_that_survive(fooled: Path, colours: Path, tmp_path: Path, change: Change, survival: float) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.25, "blue", parameters=WHITE)
    result = evaluate_run(fooled, varied(tmp_path / "bad", tmp_path / "run", change), device="cpu")
    assert result.fired
    assert result.attack_success_rate.hits == result.attack_success_rate.count == 3
    assert result.trigger_survival.survival == survival
    assert result.trigger_survival.untriggered.count == 12 - 3 - 4  # not of the target class
    assert result.label_preservation.preservation == 1
    assert result.label_preservation.originals.count == 9


def test_covers_are_neither_triggered_nor_clean(fooled: Path, colours: Path, tmp_path: Path) -> None:
    """They carry the trigger, so as clean images they would look like labels that variation lost."""
    poison(colours, tmp_path / "bad", "badnets", 0.25, "blue", parameters=WHITE, cover_rate=0.25)
    manifest = read_poison_manifest(tmp_path / "bad")
    covers = [image for image in manifest.images if image.cover]
    clean = [image for image in manifest.images if not image.cover and not image.poisoned]
    assert (len(covers), len(clean)) == (3, 6)
    result = evaluate_run(fooled, varied(tmp_path / "bad", tmp_path / "run", without_corner), device="cpu")
    assert result.attack_success_rate.count == 3
    assert result.label_preservation.originals.count == 6
    assert result.trigger_survival.untriggered.count == sum(image.label != "blue" for image in clean)


def test_a_source_that_is_gone(fooled: Path, colours: Path, tmp_path: Path) -> None:
    run = varied(colours, tmp_path / "run", lambda image, key: image)
    shutil.rmtree(colours)
    with pytest.raises(DiffcleanError, match="no longer there"):
        evaluate_run(fooled, run, device="cpu")


def test_a_source_that_was_changed_after_it_was_poisoned(fooled: Path, colours: Path, tmp_path: Path) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.25, "blue", parameters=WHITE)
    shutil.copy(next((tmp_path / "bad/red").iterdir()), tmp_path / "bad/red/new.png")
    run = varied(tmp_path / "bad", tmp_path / "run", lambda image, key: image)
    with pytest.raises(DiffcleanError, match=r"not in its poison\.json"):
        evaluate_run(fooled, run, device="cpu")
