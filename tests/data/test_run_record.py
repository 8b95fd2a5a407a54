from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from diffclean.data.lock import Lock
from diffclean.data.records import FolderRecords
from diffclean.data.run_record import RunRecord, open_run, read_run, source_of, update_run
from diffclean.errors import DiffcleanError

RECORD = RunRecord(
    identity={"engine": {"name": "micro", "fingerprint": "ab12"}, "steps": 20, "scale": 7.5, "size": "source"},
    class_to_idx={"cat": 0, "dog": 1},
    other={"workers": 2, "versions": {"torch": "2.8"}},
)


def test_begin_then_resume(tmp_path: Path) -> None:
    out = tmp_path / "deep/out"
    with Lock(out):  # its file does not count as content
        assert open_run(out, RECORD) is None
        before = (out / "run.json").read_bytes()
        assert open_run(out, replace(RECORD, other={"workers": 8})) == RECORD
    assert (out / "run.json").read_bytes() == before
    assert read_run(out) == RECORD
    assert json.loads(before)["identity"]["engine"]["name"] == "micro"


def test_of_shards_that_begin_at_once_one_writes_the_record(tmp_path: Path) -> None:
    """Two that both saw an empty folder must not both believe that their settings are the run's."""
    records = [replace(RECORD, identity={**RECORD.identity, "steps": steps}) for steps in (20, 20, 20, 50)]
    start = Barrier(len(records))

    def begin(place: Path, record: RunRecord) -> str:
        start.wait()
        try:
            return "began" if open_run(place, record) is None else "resumed"
        except DiffcleanError:
            return "refused"

    with ThreadPoolExecutor(len(records)) as pool:
        for attempt in range(20):
            outcomes = list(pool.map(begin, [tmp_path / str(attempt)] * len(records), records))
            assert outcomes.count("began") == 1
            kept = read_run(tmp_path / str(attempt)).identity["steps"]
            assert [outcome == "refused" for outcome in outcomes] == [r.identity["steps"] != kept for r in records]


def test_values_that_json_changes_still_resume(tmp_path: Path) -> None:
    record = RunRecord(identity={"shape": (1, 2), "model": Path("a/b"), "none": None, "empty": {}})
    assert [open_run(tmp_path, record) is None for _ in range(2)] == [True, False]


def test_exactly_what_differs_is_named(tmp_path: Path) -> None:
    open_run(tmp_path, RECORD)
    other = {"engine": {"name": "micro", "fingerprint": "cd34"}, "steps": 50, "scale": 7.5, "seed": 1}
    with pytest.raises(DiffcleanError) as raised:
        open_run(tmp_path, RunRecord(other))
    assert raised.value.message.splitlines()[1:] == [
        '  engine.fingerprint: "ab12" there, "cd34" asked for',
        "  steps: 20 there, 50 asked for",
        '  size: "source" there, nothing asked for',
        "  seed: nothing there, 1 asked for",
    ]
    assert "`out`" in raised.value.hint
    assert read_run(tmp_path) == RECORD


def test_a_thousand_differences_are_cut_short(tmp_path: Path) -> None:
    open_run(tmp_path, RunRecord({str(n): n for n in range(1000)}))
    with pytest.raises(DiffcleanError, match="and 980 more"):
        open_run(tmp_path, RunRecord({}))


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DiffcleanError, match=r"'holiday.jpg' and 1 more"):
        open_run(tmp_path, RECORD)
    assert not (tmp_path / "run.json").exists()


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(DiffcleanError, match="Cannot write"):
        open_run(tmp_path / "out", RECORD)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": 1}', "\0", '{"format_version": 1, "identity": 3}']
)
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DiffcleanError, match="damaged"):
        open_run(tmp_path, RECORD)


def test_a_record_of_the_future_and_none(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="not an output of diffclean"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format_version": 3}')
    with pytest.raises(DiffcleanError, match="upgrade"):
        read_run(tmp_path)


def test_where_the_images_lie_and_which_classes_they_have_does_not_make_another_run(tmp_path: Path) -> None:
    open_run(tmp_path, replace(RECORD, source="/a/data", images=2))
    now = replace(RECORD, class_to_idx={"cat": 0, "dog": 1, "eel": 2}, source="/b/data", images=3, other={"workers": 9})
    found = open_run(tmp_path, now)
    assert found is not None
    assert (found.source, found.images) == ("/a/data", 2)
    update_run(FolderRecords(tmp_path), found, now)
    assert read_run(tmp_path) == replace(now, other=RECORD.other)


def test_a_record_of_an_earlier_version_still_opens(tmp_path: Path) -> None:
    """Version 1 had the source's path among the settings."""
    old = {"format_version": 1, "identity": {"steps": 20, "source": "/a/data"}, "class_to_idx": {"cat": 0}, "other": {}}
    (tmp_path / "run.json").write_text(json.dumps(old))
    found = open_run(tmp_path, RunRecord({"steps": 20}, {"cat": 0, "dog": 1}, source="/b/data"))
    assert found == RunRecord({"steps": 20}, {"cat": 0}, source="/a/data")
    with pytest.raises(DiffcleanError, match=r"(?s)labels: nothing there.*earlier version.*format 1") as raised:
        open_run(tmp_path, RunRecord({"steps": 20, "labels": "keep"}))
    assert "can be used as they are" in raised.value.hint


def test_the_source_is_found_where_it_was_or_beside_an_output_that_moved_with_it(tmp_path: Path) -> None:
    first = tmp_path / "first"
    (first / "data").mkdir(parents=True)
    record = RunRecord({}, source=str(first / "data"), source_from_here="../data")
    open_run(first / "out", record)
    assert source_of(first / "out") == first / "data"
    first.rename(tmp_path / "second")
    assert source_of(tmp_path / "second/out") == tmp_path / "second/data"
    (tmp_path / "second/data").rmdir()
    assert source_of(tmp_path / "second/out") == first / "data"  # what a message then names


def test_a_pipe_in_place_of_the_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"images": float("inf")},
        {"images": "many"},
        {"source": 5},
        {"source": "/data\0"},
        {"source": "/data\ud800"},
        {"source_from_here": ["../data"]},
        {"identity": [1, 2]},
        {"other": 7},
    ],
)
def test_wrong_values_in_a_record_are_messages(tmp_path: Path, change: dict[str, object]) -> None:
    open_run(tmp_path, RECORD)
    (tmp_path / "run.json").write_text(json.dumps(json.loads(RECORD.as_json()) | change))
    with pytest.raises(DiffcleanError, match=r"run\.json is damaged"):
        source_of(tmp_path)


@pytest.mark.parametrize("value", ['{"a":' * 500 + "1" + "}" * 500, "1e999", "[" * 100_000])
def test_settings_that_cannot_be_compared_are_damage(tmp_path: Path, value: str) -> None:
    text = RECORD.as_json().replace('"steps": 20', f'"steps": {value}')
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DiffcleanError, match=r"run\.json is damaged"):
        open_run(tmp_path, RECORD)


def test_a_record_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(DiffcleanError, match="larger than 64 MiB"):
        read_run(tmp_path)


def test_a_source_whose_name_is_no_text_is_found_again(tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    place.mkdir()
    open_run(tmp_path / "out", replace(RECORD, source=str(place)))
    assert source_of(tmp_path / "out") == place
