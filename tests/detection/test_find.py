"""What `find_suspects` reads for a detector and makes of its answer; with a detector that judges at a glance."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from suspect_set import COUNT, TRIGGERED

from diffclean.data.suspects import JudgedClass, read_list
from diffclean.detection import registry
from diffclean.detection.base import Evidence, Judgement
from diffclean.detection.find import find_suspects
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import Progress


@dataclass
class Brightest:
    """Lists the images with a white corner, and keeps what it was given."""

    name = "brightest"
    citation = "none"
    needs_teacher = False
    needs_variations = False
    needs_retrained = False
    given: list[Evidence] = field(default_factory=list)

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        self.given.append(evidence)
        numbers = evidence.images.starts[:-1]
        corner = next(evidence.images.pixels.batches([numbers]))[:, :, -1, -1].min(1).values.numpy()
        scores = corner.astype(np.float64)
        judged = JudgedClass("blue", len(scores), int((scores > 250).sum()), 1.0, 0.5)
        return Judgement(scores, scores / 255, scores > 250, [judged])


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Brightest:
    made = Brightest()
    monkeypatch.setitem(registry.DETECTORS, made.name, made)
    return made


def test_a_folder_alone_is_enough_for_a_detector_that_needs_no_more(
    detector: Brightest, suspect_set: Path, tmp_path: Path
) -> None:
    found = find_suspects(suspect_set, "brightest", device="cpu", seed=7)
    assert found.keys == TRIGGERED
    assert (found.detector, found.source, found.teacher) == ("brightest", str(suspect_set), "")
    assert found.settings == {"seed": 7, "size": [16, 16]}
    assert len(found.images) == 3 * COUNT
    image = next(image for image in found.images if image.key == "blue/000.png")
    assert (image.label, image.score, image.probability) == ("blue", 255, 1)
    (given,) = detector.given
    assert (given.teacher, given.variations, given.seed) == (None, None, 7)
    found.write(tmp_path / "list.json")
    assert read_list(tmp_path / "list.json") == found


def test_variations_come_in_the_order_of_their_originals(
    detector: Brightest, fooled: Path, suspect_set: Path, suspect_run: Path
) -> None:
    (suspect_set / "red/000.png").unlink()
    find_suspects(suspect_set, "brightest", fooled, suspect_run, device="cpu")
    (given,) = detector.given
    assert given.variations is not None
    assert given.variations.keys == given.images.keys
    assert given.variations.starts.tolist() == list(range(0, 2 * len(given.images.keys) + 1, 2))
    pixels = [next(each.pixels.batches([each.starts[:-1]])).double() for each in (given.images, given.variations)]
    # The variations differ from their originals by a brightness and the corner, so far less than from other images.
    pairs = [(one - one.mean((1, 2, 3), keepdim=True))[:, :, :-2] for one in pixels]
    assert float((pairs[0] - pairs[1]).abs().mean()) < 1
    assert given.teacher is not None
    assert given.teacher.class_to_idx == {"blue": 0, "green": 1, "red": 2}


def test_what_has_no_counterpart_is_not_judged_and_is_named(
    detector: Brightest, fooled: Path, suspect_set: Path, suspect_run: Path
) -> None:
    (suspect_set / "red/000.png").unlink()
    Image.new("RGB", (16, 16)).save(suspect_set / "red/001.png")
    Image.new("RGB", (16, 16)).save(suspect_set / "red/new.png")
    (suspect_set / "red/002.png").write_bytes(b"nonsense")
    found = find_suspects(suspect_set, "brightest", fooled, suspect_run, device="cpu")
    assert set(found.missing) == {f"red/{name}.png" for name in ("000", "001", "new", "002")}
    assert found.missing["red/000.png"] == f"it is not in {suspect_set}"
    assert "changed after its variation was made" in found.missing["red/001.png"]
    assert found.missing["red/new.png"] == f"it has no variation in {suspect_run}"
    assert len(found.images) == 3 * COUNT - 3


def test_the_data_set_is_where_the_variations_were_made_from(
    detector: Brightest, suspect_set: Path, suspect_run: Path, tmp_path: Path
) -> None:
    assert find_suspects(None, "brightest", variations=suspect_run, device="cpu").source == str(suspect_set)
    moved = Path(shutil.move(suspect_set, tmp_path / "moved"))
    with pytest.raises(DiffcleanError, match=r"(?s)There is no folder .*data\..*diffclean suspects DATA"):
        find_suspects(None, "brightest", variations=suspect_run, device="cpu")
    assert find_suspects(moved, "brightest", variations=suspect_run, device="cpu").keys == TRIGGERED
    other = tmp_path / "other"
    (other / "red").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(other / "red/x.png")
    with pytest.raises(DiffcleanError, match=r"No variation in .* has its original"):
        find_suspects(other, "brightest", variations=suspect_run, device="cpu")


@pytest.mark.parametrize(
    ("sides", "size", "looked_at"),
    [
        ((24,), None, 24),
        ((80,), None, 80),
        ((130,), None, 128),
        ((24, 32), None, 64),
        ((24, 80), None, 128),
        ((24, 32), 16, 16),
    ],
)
def test_images_are_looked_at_as_they_are_up_to_128_px(
    sides: tuple[int, ...], size: int | None, looked_at: int, detector: Brightest, tmp_path: Path
) -> None:
    for number in range(4):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        side = sides[number % len(sides)]
        Image.new("RGB", (side, side)).save(folder / f"{number}.png")
    find_suspects(tmp_path / "data", "brightest", size=size, device="cpu")
    assert detector.given[0].images.pixels.shape == (looked_at, looked_at)


def test_what_a_detector_needs_is_asked_for_before_any_work(suspect_set: Path, suspect_run: Path) -> None:
    with pytest.raises(UsageError, match=r"variation-drop needs a teacher \(`teacher` t.pt.*and variations"):
        find_suspects(suspect_set, "variation-drop")
    with pytest.raises(UsageError, match=r"needs a teacher \(`teacher` t.pt, from: diffclean train DATA -o t.pt\)\."):
        find_suspects(suspect_set, "variation-drop", variations=suspect_run)
    with pytest.raises(UsageError, match=r"(?s)no detector 'crystal-ball'.*The detectors are: .*variation-drop"):
        find_suspects(suspect_set, "crystal-ball")


def test_no_data_set_at_all(detector: Brightest) -> None:
    with pytest.raises(UsageError, match=r"(?s)No data set was named.*diffclean suspects DATA"):
        find_suspects(detector="brightest")


def test_every_detector_can_be_found_by_its_name() -> None:
    assert "variation-drop" in registry.DETECTORS
    for name, detector in registry.DETECTORS.items():
        assert detector.name == name
        assert detector.citation
