"""`detection.py`: the grid of data sets, attacks and rates on which detectors are measured, and its tables."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import render_detection
import torch
from detection_cell import ATTACKS, half_of
from detection_data import data_set
from PIL import Image

from diffclean.data.suspects import JudgedClass
from diffclean.detection import registry
from diffclean.detection.base import Evidence, Judgement
from diffclean.progress import Progress

RunScript = Callable[..., dict[str, Any]]


class Corner:
    """Takes an image for poisoned whose lower right pixels are those of the BadNets patch: quick, and often right."""

    name, citation = "corner", "these tests"
    needs_teacher, needs_variations, needs_retrained = False, False, False

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        images = evidence.images
        pixels = next(iter(images.pixels.batches([torch.arange(len(images.keys))]))).float()
        scores = pixels[:, :, -1, -1].mean(1).double().numpy()
        flags = scores > 200
        counts = [int((images.labels == number).sum()) for number in images.class_to_idx.values()]
        listed = [int(flags[images.labels.numpy() == number].sum()) for number in images.class_to_idx.values()]
        rows = zip(images.class_to_idx, counts, listed, strict=True)
        return Judgement(scores, flags * 1.0, flags, [JudgedClass(*row, separation=0.0, limit=1.0) for row in rows])


@pytest.fixture(autouse=True, scope="module")
def corner() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.DETECTORS, "corner", Corner())
        yield


@pytest.fixture(scope="module")
def command(bars: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    work = tmp_path_factory.mktemp("detection")
    data = ["--data", f"bars={bars[0]}:{bars[1]}", "--work", work, "--half", "both", "--detectors", "corner"]
    attacks = ["--attacks", "benign", "badnets", "sig", "--rates", "0.3", "0.28", "0.1"]
    return ["detection", *data, *attacks, "--arch", "tiny", "--epochs", "1"]


@pytest.fixture(scope="module")
def result(command: list[Any], run_script: RunScript) -> dict[str, Any]:
    return run_script(*command, "--teachers")


def test_clean_labels_are_capped_and_two_rates_that_become_one_are_measured_once(result: dict[str, Any]) -> None:
    cells = result["figures"]["cells"]
    assert result["figures"]["failed"] == []
    asked = [(cell["attack"], cell["rate"], cell["real_rate"], cell["poisoned"]) for cell in cells]
    assert asked == [
        ("benign", None, None, 0),
        ("badnets", 0.3, 0.3, 12),
        ("sig", 0.3, 0.25, 10),  # half of a class that has half of the images
        ("badnets", 0.28, 0.28, 11),
        ("badnets", 0.1, 0.1, 4),
        ("sig", 0.1, 0.1, 4),
    ]


def test_a_list_is_compared_with_the_truth(result: dict[str, Any]) -> None:
    benign, badnets, sig = result["figures"]["cells"][:3]
    assert (benign["tpr"], benign["fpr"], benign["auroc"], benign["listed"]) == (None, 0, None, 0)
    assert (badnets["tpr"], badnets["fpr"], badnets["auroc"], badnets["listed"]) == (1, 0, 1, 12)
    assert badnets["classes"] == {badnets["target"]: 12}
    assert (sig["tpr"], sig["fpr"]) == (0, 0)


def test_the_teacher_anew_did_not_see_what_is_listed(result: dict[str, Any], command: list[Any]) -> None:
    benign, badnets, sig = result["figures"]["cells"][:3]
    assert set(badnets["teachers"]) == {"before", "anew", "clean", "fired"}
    assert set(badnets["teachers"]["clean"]) == {"ca", "asr"}
    assert set(benign["teachers"]["anew"]) == {"ca"}
    assert sig["teachers"]["anew"] == sig["teachers"]["before"]  # nothing is listed, so it is the same classifier
    teachers = {path.name for path in (Path(command[4]) / "bars" / "teachers").glob("*.pt")}
    assert f"badnets-0.3-1-1-tiny-1-16-{badnets['list']}.pt" in teachers
    # The clean one, five on poisoned data, three of BadNets anew.
    assert len(teachers) == 9


def test_what_was_measured_is_read_again(result: dict[str, Any], command: list[Any], run_script: RunScript) -> None:
    work = Path(command[4])
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.*")}
    assert run_script(*command, "--teachers")["figures"] == result["figures"]
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*.*")} == before


def test_a_cell_that_fails_does_not_cost_the_others(command: list[Any], run_script: RunScript) -> None:
    few = [part for part in command if part not in ("0.3", "0.28", "0.1")]
    few.insert(few.index("--rates") + 1, "0.001")
    figures = run_script(*few, fails=True)["figures"]
    assert [cell["attack"] for cell in figures["cells"]] == ["benign"]
    assert [each["cell"] for each in figures["failed"]] == ["bars-badnets-0.001-1-corner", "bars-sig-0.001-1-corner"]
    assert "poisons none of 40 images" in figures["failed"][0]["why"]


def test_the_tables_tell_both_halves_and_which_attacks_did_not_fire(
    result: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = copy.deepcopy(result)
    badnets = next(cell for cell in result["figures"]["cells"] if cell["attack"] == "badnets")
    half, other = badnets["half"], {"chosen": "reported", "reported": "chosen"}[badnets["half"]]
    badnets["teachers"]["fired"] = True
    again = badnets | {"seed": 2, "half": half, "tpr": 0.5, "fpr": 0.125}
    moved = badnets | {"attack": "blended", "half": other, "tpr": 0.75}
    figures = result["figures"] | {"cells": [*result["figures"]["cells"], again, moved]}
    page = render_detection.detection_summary(result | {"figures": figures})
    assert f"| dirty labels, 1 % and more | {half} | 2 | 75.0% | 50.0% | 6.2% | 12.5% |" in page
    assert f"| dirty labels, 1 % and more | {other} | 1 | 75.0% | 75.0% | 0.0% | 0.0% |" in page
    page = render_detection.detection_table(result | {"figures": figures})
    assert f"| bars | badnets | 30.0% | {half} | 1, 2 | 12 | 75.0% (50.0%-100.0%) |" in page
    assert "| bars | sig (did not fire) | 30.0% (25.00%) |" in page
    monkeypatch.setattr(render_detection, "DEFAULT_DETECTOR", "corner")
    page = render_detection.detection_short(result | {"figures": figures})
    found = {
        half: "75.0%, worst 50.0% (2 runs) | 6.2%, worst 12.5%",
        other: "75.0%, worst 75.0% (1 run) | 0.0%, worst 0.0%",
    }
    assert f"| dirty labels, 1 % and more | {found['chosen']} | {found['reported']} |" in page


def test_halves_depend_on_names_alone() -> None:
    halves = {half_of(data, attack) for data in ("cifar10", "signs") for attack in ATTACKS}
    assert halves == {"chosen", "reported"}
    assert hashlib.sha256(b"cifar10/badnets").digest()[0] % 2 == 0
    assert half_of("cifar10", "badnets") == "chosen"
    assert [half_of("signs", "benign", seed) for seed in (1, 10, 11)] == ["chosen", "chosen", "reported"]


def test_tiny_imagenet_gives_every_fifth_class_with_sizes_spread_evenly(tmp_path: Path) -> None:
    for number in range(11):
        folder = tmp_path / "tiny" / f"n{number:02d}"
        folder.mkdir(parents=True)
        for index in range(460):
            (folder / f"{index}.webp").touch()
    data = data_set(f"tiny40={tmp_path / 'tiny'}", tmp_path / "work")
    assert sorted(data.sizes.values()) == [100, 250, 400]
    assert set(data.sizes) == {"n00", "n05", "n10"}
    train, test = ({path.relative_to(root) for path in root.rglob("*.webp")} for root in (data.train, data.test))
    assert len(test) == 3 * 60
    assert not train & test


def test_signs_are_drawn_by_day_and_by_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detection_data.SIGNS_TRAIN", 6)
    monkeypatch.setattr("detection_data.SIGNS_TEST", 1)
    data = data_set("signs", tmp_path)
    pictures = [np.asarray(Image.open(path), float) for path in sorted(data.train.rglob("*.png"))]
    assert {picture.shape for picture in pictures} == {(32, 32, 3)}
    assert set(data.sizes.values()) == {6}
    dark = [picture.mean() < 45 for picture in pictures]
    assert 0.2 < np.mean(dark) < 0.6


def test_benign_runs_of_the_two_halves_do_not_share_a_row(result: dict[str, Any]) -> None:
    both = copy.deepcopy(result)
    benign = both["figures"]["cells"][0]
    both["figures"]["cells"] = [benign, benign | {"seed": 11, "half": "reported"}]
    rows = [line for line in render_detection.detection_table(both).splitlines() if "| benign |" in line]
    assert [("| chosen | 1 |" in row, "| reported | 11 |" in row) for row in rows] == [(True, False), (False, True)]
