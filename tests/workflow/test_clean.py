"""The whole job on drawn shapes, with networks and an engine that take no time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from sides import LEFT, MIDDLE, RIGHT, draw_sides

from diffclean.classifiers import checkpoints
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.atomic import WriteError
from diffclean.data.suspects import read_list
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, UsageError
from diffclean.report.facts import read_facts
from diffclean.workflow.clean import CleanResult, clean
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.prepare import prepare
from diffclean.workflow.steps import Hands
from diffclean.workflow.told_first import told

PER_CLASS = 60


def run(config: CleanConfig, stop: Event | None = None) -> CleanResult:
    hands = Hands(stop=stop)
    return clean(prepare(config, hands), hands)


@pytest.mark.slow
def test_one_call_leaves_student_list_cleaned_data_and_a_page(config: CleanConfig) -> None:
    done = run(config)
    assert done.exit_code == ExitCode.DONE
    for name in ("student.pt", "student.safetensors", "student.onnx", "suspects.json", "suspects.csv", "report.html"):
        assert (config.out / name).is_file(), name
    assert done.suspects is not None
    listed = done.suspects.keys
    assert listed == read_list(config.out / "suspects.csv").keys
    assert 0 < len(listed) == done.images - done.kept
    student = checkpoints.load(config.out / "student.safetensors")
    assert student.metrics["images"] == done.kept
    kept = {path.relative_to(config.out / "cleaned").as_posix() for path in (config.out / "cleaned").rglob("*.png")}
    assert len(kept) == done.kept
    assert not kept & listed
    with (config.out / "cleaned.csv").open(newline="") as file:
        assert {row["original"] for row in csv.DictReader(file)} == kept
    facts = read_facts(config.out)
    assert facts.counts.images == 3 * PER_CLASS
    assert facts.outcome is not None
    assert facts.outcome.after.clean_accuracy == done.measured.student.clean_accuracy  # type: ignore[union-attr]
    assert facts.hashes.keys() >= {"student.onnx", "suspects.json"}

    before = _written(config.out)
    again = run(config)
    assert again.measured == done.measured
    assert _written(config.out) == before, "nothing was left to do"

    fewer = sorted(listed)[1:]
    edited = json.loads((config.out / "suspects.json").read_text())
    for row in edited["images"]:
        row["suspect"] = row["key"] in fewer
    (config.out / "suspects.json").write_text(json.dumps(edited))
    looked_through = run(config)
    assert looked_through.kept == done.kept + 1, "a list that a person has changed is believed"
    after = _written(config.out)
    assert after["work/teacher.pt"] == before["work/teacher.pt"]
    assert after["work/teacher-anew.pt"] != before["work/teacher-anew.pt"]
    assert {name: when for name, when in after.items() if "_v00" in name} == {
        name: when for name, when in before.items() if "_v00" in name
    }
    assert sum(1 for _ in (config.out / "cleaned").rglob("*.png")) == looked_through.kept
    assert sum(each.suspects for each in looked_through.suspects.classes) == len(fewer)  # type: ignore[union-attr]

    next((config.out / "cleaned").rglob("*.png")).unlink()
    assert run(config).kept == looked_through.kept
    assert sum(1 for _ in (config.out / "cleaned").rglob("*.png")) == looked_through.kept, "it is made again"

    varied = run(replace(config, cleaned="variations", from_step="outputs"))
    assert varied.cleaned is not None
    assert {path.name.rpartition("_")[2] for path in varied.cleaned.rglob("*.png")} == {"v00.png"}
    assert sum(1 for _ in varied.cleaned.rglob("*.png")) == varied.kept
    assert _written(config.out)["work/student.pt"] == after["work/student.pt"]

    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        run(replace(config, from_step="suspects"), stop)
    assert read_list(config.out / "suspects.edited.json").keys == set(fewer), "what a person has changed is not lost"


@pytest.mark.slow
def test_images_that_become_something_else_in_the_mirror_are_not_mirrored(config: CleanConfig, tmp_path: Path) -> None:
    draw_sides(tmp_path / "sides", 80, {"left": (LEFT,), "right": (RIGHT,), "middle": (MIDDLE,)})
    job = replace(config, data=tmp_path / "sides", test=None, flip=None)
    before = "\n".join(told(prepare(job, Hands())))
    assert "Training mirrors images unless a first look shows that this changes what they mean." in before
    run(job)
    facts = read_facts(job.out)
    assert facts.settings["train"]["flip"] == "none"
    assert any("left, right are taken for something else" in note for note in facts.counts.notes)
    looked = _written(job.out)["work/mirrored.json"]
    run(replace(job, from_step="student"))
    assert _written(job.out)["work/mirrored.json"] == looked
    assert read_facts(job.out).settings["train"]["flip"] == "none"
    run(replace(job, flip="alternating"))
    assert read_facts(job.out).settings["train"]["flip"] == "alternating"


def _written(out: Path) -> dict[str, int]:
    """When each outcome was written; what is told anew each time is left out."""
    pages = {"report.html", "report.json", "croissant.json"}
    told_anew = {*pages, "state.json", "suspects.csv", "work/variations/manifest.parquet"}
    found = {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    return {name: when for name, when in found.items() if name not in told_anew and ".diffclean" not in name}


def test_a_self_test_that_is_to_be_repeated_keeps_no_outcome(config: CleanConfig) -> None:
    """It has a ledger of its own, and `from_step` found every attack done."""
    stop = Event()
    stop.set()
    with pytest.raises(Interrupted):
        clean(prepare(config, Hands()), Hands(stop=stop))
    kept = config.out / "work" / "self-test" / "badnets.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    for stage, is_kept in (("outputs", True), ("self-test", False)):
        with pytest.raises(Interrupted):
            clean(prepare(replace(config, from_step=stage), Hands()), Hands(stop=stop))
        assert kept.exists() is is_kept


def test_a_look_writes_nothing_and_says_what_will_be_done(config: CleanConfig) -> None:
    lines = "\n".join(told(prepare(replace(config, self_test=None), Hands())))
    assert "180 images in 3 classes" in lines
    assert "lying (60)" in lines
    assert "Expected: about" in lines
    assert "it needs 200 images" in lines
    assert not config.out.exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_data_is_read(tmp_path: Path) -> None:
    """A dry run writes nothing, so it goes on, and finds that there is no image."""
    (tmp_path / "data").mkdir()
    (tmp_path / "a file").touch()
    config = CleanConfig(data=tmp_path / "data", out=tmp_path / "a file/job")
    with pytest.raises(WriteError, match="no folder is in its way"):
        prepare(config, Hands())
    with pytest.raises(DiffcleanError, match="no images"):
        prepare(config, Hands(), dry_run=True)


def test_a_stop_tells_what_is_done_and_the_same_call_goes_on(config: CleanConfig) -> None:
    stop = Event()
    prepared = prepare(config, Hands())
    stop.set()
    with pytest.raises(Interrupted, match="Done so far: nothing yet"):
        clean(prepared, Hands(stop=stop))
    assert not (config.out / "student.pt").exists()
    assert run(config).student is not None


def test_the_gate_is_missed_where_a_limit_is(config: CleanConfig) -> None:
    done = run(replace(config, max_loss=0.0, cleaned="none"))
    assert done.measured.teacher is not None
    assert done.measured.student is not None
    lost = done.measured.teacher.clean_accuracy.value - done.measured.student.clean_accuracy.value
    assert [check.passed for check in done.gate] == [lost <= 0]
    assert done.exit_code == (ExitCode.DONE if lost <= 0 else ExitCode.GATE_MISSED)


def test_what_does_not_go_together_is_said_before_any_work(
    config: CleanConfig, fooled: Path, suspect_set: Path
) -> None:
    with pytest.raises(UsageError, match=r"test set .* do not match: only the data have lying"):
        prepare(replace(config, test=suspect_set), Hands())
    with pytest.raises(UsageError, match=r"teacher .* do not match"):
        prepare(replace(config, teacher=ClassifierFile(fooled)), Hands())
    with pytest.raises(UsageError, match="bogus"):
        prepare(replace(config, detector="bogus"), Hands())
    with pytest.raises(UsageError, match="looks for what another one missed"):
        prepare(replace(config, detector="logit-difference"), Hands())
    for limits in ({"max_asr": 5.0}, {"max_loss": 3.0, "test": None}):
        with pytest.raises(UsageError, match="nothing will measure"):
            prepare(replace(config, **limits), Hands())
    with pytest.raises(UsageError, match="price_per_hour"):
        prepare(replace(config, price_per_hour=-5.0), Hands())
    assert not config.out.exists()


def test_a_folder_of_something_else_is_left_alone(config: CleanConfig, suspect_set: Path) -> None:
    config.out.mkdir()
    (config.out / "holiday.txt").write_text("sun")
    with pytest.raises(DiffcleanError, match=r"is not empty and holds no state.json"):
        prepare(config, Hands())
    (config.out / "holiday.txt").unlink()
    outside = {"../data": {"step": "teacher", "of": {}, "sha256": None}}
    state = {"format": "diffclean-state", "format_version": 1, "notes": {}, "outcomes": outside}
    (config.out / "state.json").write_text(json.dumps(state))
    with pytest.raises(DiffcleanError, match="is damaged"):
        prepare(config, Hands())
    (config.out / "state.json").write_text("{")
    with pytest.raises(DiffcleanError, match="is damaged") as raised:
        prepare(config, Hands())
    assert "Choose another folder" in raised.value.hint
    (config.out / "state.json").write_text("[]")
    with pytest.raises(DiffcleanError, match="was not written by `clean`"):
        prepare(config, Hands())
    elsewhere = {"look": {"where": "/another", "sketch": ["0" * 16]}}
    (config.out / "state.json").write_text(json.dumps(state | {"notes": elsewhere, "outcomes": {}}))
    with pytest.raises(DiffcleanError, match="belongs to /another, which has no image in common"):
        prepare(config, Hands())


def test_data_without_labels_are_refused_with_a_way_out(config: CleanConfig, shapes: tuple[Path, Path]) -> None:
    with pytest.raises(DiffcleanError, match="lie in no class folders") as raised:
        prepare(replace(config, data=shapes[0] / "lying", test=None), Hands())
    assert "diffclean variate" in raised.value.hint
    with pytest.raises(DiffcleanError, match=r"The images in .*lying lie in no class folders"):
        prepare(replace(config, test=shapes[1] / "lying"), Hands())


def test_images_beside_the_class_folders_are_refused(
    config: CleanConfig, draw_photos: Callable[..., Path], tmp_path: Path
) -> None:
    """They have no label. They were counted, and refused only when the first training began."""
    data = draw_photos(tmp_path / "mixed", ["a/1.png", "a/2.png", "b/1.png", "stray.png"])
    with pytest.raises(DiffcleanError, match=r"Some images in .*mixed lie in no class folder \(1 of 4\)"):
        prepare(replace(config, data=data, test=None), Hands())


def test_a_class_that_cannot_be_read_is_refused_with_the_reason(
    config: CleanConfig, draw_photos: Callable[..., Path], tmp_path: Path
) -> None:
    data = draw_photos(tmp_path / "data", ["a/1.png", "b/1.png"])
    (data / "b/1.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(DiffcleanError, match=r"without an image that can be read: b\. b/1\.png: "):
        prepare(replace(config, data=data, test=None), Hands())


def test_a_folder_that_cannot_be_listed_is_no_image_to_leave_out(
    config: CleanConfig, draw_photos: Callable[..., Path], tmp_path: Path
) -> None:
    """It may be a whole class. It was said to be left out, and the first training refused it."""
    data = draw_photos(tmp_path / "data", ["a/1.png", "b/1.png"])
    (data / "c").symlink_to(tmp_path)  # As root may list everything: what leads out of the data is not listed either.
    with pytest.raises(DiffcleanError, match=r"cannot be read and belong to no class, such as c: ") as raised:
        prepare(replace(config, data=data, test=None), Hands())
    assert "readable for this user" in raised.value.hint


def test_a_test_set_that_is_the_data_is_said_to_measure_nothing_new(config: CleanConfig) -> None:
    assert "The test set is the data itself" in "\n".join(told(prepare(replace(config, test=config.data), Hands())))


def test_one_class_is_refused(config: CleanConfig, draw_photos: object, tmp_path: Path) -> None:
    assert callable(draw_photos)
    data = draw_photos(tmp_path / "one", [f"cat/{number}.png" for number in range(3)])
    with pytest.raises(DiffcleanError, match="one class only, cat"):
        prepare(replace(config, data=data, test=None), Hands())


def test_a_class_folder_without_images_is_refused_before_any_work(
    config: CleanConfig, draw_photos: object, tmp_path: Path
) -> None:
    assert callable(draw_photos)
    data = draw_photos(tmp_path / "three", [f"{name}/{number}.png" for name in "ab" for number in range(3)])
    (data / "c").mkdir()
    (data / "@eaDir").mkdir()
    (data / ".hidden").mkdir()
    with pytest.raises(DiffcleanError, match=r"classes without an image that can be read: c\.\n"):
        prepare(replace(config, data=data, test=None), Hands())
    (data / "c").rmdir()
    assert prepare(replace(config, data=data, test=None), Hands()).found.images == 6


def test_two_images_a_class_are_regenerated_and_reported_and_no_more(
    config: CleanConfig, draw_photos: object, tmp_path: Path
) -> None:
    assert callable(draw_photos)
    data = draw_photos(tmp_path / "few", [f"{name}/{number}.png" for name in "abc" for number in range(2)])
    done = run(replace(config, data=data, test=None, self_test=None))
    assert done.student is None
    assert done.exit_code == ExitCode.SOME_FAILED
    assert "fewer than 5 a class" in done.cannot[0]
    assert done.report.is_file()
    assert len(list((config.out / "work" / "variations").rglob("*_v00.png"))) == 6
    assert done.kept == 6
    assert done.cleaned is None, "nobody has judged the originals"
    assert not (config.out / "cleaned").exists()


def test_a_class_that_is_suspect_as_a_whole_leaves_no_student(config: CleanConfig) -> None:
    done = run(config)
    assert done.student is not None
    edited = json.loads((config.out / "suspects.json").read_text())
    for row in edited["images"]:
        row["suspect"] = row["label"] == "lying"
    (config.out / "suspects.json").write_text(json.dumps(edited))
    without = run(config)
    assert without.student is None
    assert "Every image of lying is listed" in without.cannot[0]
    assert not (config.out / "student.onnx").exists()
    assert without.report.is_file()
    for row in edited["images"]:
        row["suspect"] = True
    (config.out / "suspects.json").write_text(json.dumps(edited))
    nothing = run(config)
    assert (nothing.student, nothing.kept) == (None, 0)
    assert "Every image of lying, square, standing is listed" in nothing.cannot[0]
    assert list((config.out / "cleaned").rglob("*.png")) == []
    assert "Every image of" in nothing.report.read_text()


@pytest.mark.slow
def test_a_teacher_that_is_given_is_not_trained_and_nothing_suspect_means_no_second_one(
    config: CleanConfig, fooled: Path, suspect_set: Path
) -> None:
    """With a detector that looks at variations of its own."""
    given = replace(config, data=suspect_set, test=suspect_set, teacher=ClassifierFile(fooled))
    done = run(replace(given, detector="variation-drop"))
    assert not (config.out / "work" / "teacher.pt").exists()
    assert (config.out / "work" / "looks").is_dir()
    assert done.measured.teacher is not None
    assert done.measured.teacher.model == str(fooled)
    assert done.suspects is not None
    edited = json.loads((config.out / "suspects.json").read_text())
    for row in edited["images"]:
        row["suspect"] = False
    (config.out / "suspects.json").write_text(json.dumps(edited))
    kept = run(replace(given, detector="variation-drop"))
    assert kept.suspects is not None
    assert kept.suspects.suspects == 0
    assert kept.measured.anew is None
    assert kept.kept == kept.images
