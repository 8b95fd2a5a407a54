"""Precision, recall and false positives of a list, worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from diffclean.attacks.base import Form, Labels
from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.poison import poison
from diffclean.attacks.record import PoisonedImage, PoisonManifest
from diffclean.data.suspects import JudgedImage, SuspectList
from diffclean.errors import DiffcleanError, UsageError
from diffclean.evaluation.listed import measure_list

POISONED, COVERS, CLEAN = ("p0", "p1", "p2", "p3"), ("c0", "c1"), ("n0", "n1", "n2", "n3", "n4")


def row(output: str) -> PoisonedImage:
    """The manifest's row; its key in the source is another one than that in the data set that was written."""
    return PoisonedImage(f"source/{output}.jpg", output, "cat", output in POISONED, "", "", output in COVERS)


MANIFEST = PoisonManifest(
    "adaptive-blend",
    {},
    0.4,
    "dog",
    1,
    Labels.ALL_TO_ONE,
    {"cat": 0, "dog": 1},
    images=[*map(row, POISONED + COVERS + CLEAN)],
)


def listed(scores: dict[str, float], suspects: set[str], missing: dict[str, str] | None = None) -> SuspectList:
    images = [JudgedImage(key, "dog", score, 0.5, key in suspects) for key, score in scores.items()]
    return SuspectList("some", "data", "", [], images, missing or {})


SCORES = {"p0": 9, "p1": 8, "p2": 3, "p3": 1, "c0": 10, "c1": 0, "n0": 5, "n1": 3, "n2": 0, "n3": 0, "n4": 0}
SUSPECTS = {"p0", "p1", "p2", "c0", "n0"}


def test_worked_example() -> None:
    """Listed are three of four poisoned images, one of two covers and one of five clean ones.

    The listed cover counts neither as right nor as wrong, so precision is three of four. For the AUROC: p0 and p1 are
    above all five clean images, p2 is above three of them and equal to a fourth, p3 is above three.
    """
    found = measure_list(listed(SCORES, SUSPECTS), MANIFEST)
    assert (found.precision.hits, found.precision.count) == (3, 4)
    assert (found.recall.hits, found.recall.count) == (3, 4)
    assert (found.false_positive_rate.hits, found.false_positive_rate.count) == (1, 5)
    assert (found.covers.hits, found.covers.count) == (1, 2)
    assert found.auroc == pytest.approx((5 + 5 + 3.5 + 3) / 20)
    assert (found.attack, found.unjudged) == ("adaptive-blend", 0)
    assert found.recall.low == pytest.approx(0.3006, abs=1e-4)  # Wilson's interval of 3 in 4


def test_covers_are_no_clean_images() -> None:
    """Listing every cover costs nothing, and their scores do not enter the AUROC."""
    perfect = {key: 2.0 if key in POISONED else 3.0 if key in COVERS else 1.0 for key in SCORES}
    found = measure_list(listed(perfect, {*POISONED, *COVERS}), MANIFEST)
    assert (found.precision.value, found.recall.value, found.false_positive_rate.value) == (1, 1, 0)
    assert found.auroc == 1
    assert found.covers.value == 1


def test_images_that_could_not_be_judged_are_not_counted() -> None:
    scores = {key: score for key, score in SCORES.items() if key not in ("p3", "n4")}
    found = measure_list(listed(scores, SUSPECTS, {"p3": "cannot be read", "n4": "cannot be read"}), MANIFEST)
    assert (found.recall.hits, found.recall.count) == (3, 3)
    assert (found.false_positive_rate.hits, found.false_positive_rate.count) == (1, 4)
    assert found.unjudged == 2


@pytest.mark.parametrize("content", ['["p0", "n0"]', "key\np0\nn0\n"])
def test_a_file_with_keys_alone_has_everything_but_the_auroc(content: str, tmp_path: Path) -> None:
    path = tmp_path / ("list.json" if content[0] == "[" else "list.csv")
    path.write_text(content)
    found = measure_list(path, MANIFEST)
    assert (found.precision.hits, found.precision.count) == (1, 2)
    assert (found.recall.hits, found.recall.count) == (1, 4)
    assert (found.false_positive_rate.hits, found.false_positive_rate.count) == (1, 5)
    assert math.isnan(found.auroc)


def test_an_empty_list_has_no_precision() -> None:
    found = measure_list(listed(SCORES, set()), MANIFEST)
    assert math.isnan(found.precision.value)
    assert (found.recall.value, found.false_positive_rate.value) == (0, 0)


def test_files_of_a_data_set_that_was_really_poisoned(colours: Path, tmp_path: Path) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.25, "blue")
    written = sorted(f"{path.parent.name}/{path.name}" for path in (tmp_path / "bad").glob("*/*.png"))
    listed(dict.fromkeys(written, 1.0), set(written)).write(tmp_path / "all.csv")
    found = measure_list(tmp_path / "all.csv", tmp_path / "bad" / MANIFEST_FILE)
    assert (found.precision.hits, found.precision.count) == (3, 12)
    assert (found.recall.value, found.false_positive_rate.value, found.auroc) == (1, 1, 0.5)


def test_in_a_triggered_test_set_every_image_is_poisoned() -> None:
    manifest = PoisonManifest(
        "badnets", {}, 1.0, "dog", 1, Labels.ALL_TO_ONE, {"cat": 0, "dog": 1}, Form.TEST, images=[row("n0"), row("n1")]
    )
    found = measure_list(listed({"n0": 1.0, "n1": 0.0}, {"n0"}), manifest)
    assert (found.recall.hits, found.recall.count, found.false_positive_rate.count) == (1, 2, 0)


def test_a_list_of_another_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"1 of the 2 images on the list are not in the poison manifest, such as x/1"):
        measure_list(listed({"p0": 1.0, "x/1": 2.0}, set()), MANIFEST)
    with pytest.raises(DiffcleanError, match="No such file"):
        measure_list(listed(SCORES, set()), tmp_path / "poison.json")
