from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from diffclean.data.lock import Lock
from diffclean.data.run_record import RunRecord, check_separate, open_run, read_run
from diffclean.errors import DiffcleanError

RECORD = RunRecord(
    identity={"engine": {"name": "micro", "fingerprint": "ab12"}, "steps": 20, "scale": 7.5, "size": "source"},
    class_to_idx={"cat": 0, "dog": 1},
    other={"workers": 2, "versions": {"torch": "2.8"}},
)


def test_begin_then_resume(tmp_path: Path) -> None:
    out = tmp_path / "deep/out"
    with Lock(out):  # its file does not count as content
        assert open_run(out, RECORD) is False
        before = (out / "run.json").read_bytes()
        assert open_run(out, replace(RECORD, other={"workers": 8})) is True
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
            return "resumed" if open_run(place, record) else "began"
        except DiffcleanError:
            return "refused"

    with ThreadPoolExecutor(len(records)) as pool:
        for attempt in range(20):
            outcomes = list(pool.map(begin, [tmp_path / str(attempt)] * len(records), records))
            assert outcomes.count("began") == 1
            kept = read_run(tmp_path / str(attempt)).identity["steps"]
            assert [outcome == "refused" for outcome in outcomes] == [r.identity["steps"] != kept for r in records]


def test_values_that_json_changes_still_resume(tmp_path: Path) -> None:
    record = RunRecord(identity={"shape": (1, 2), "source": Path("a/b"), "none": None, "empty": {}})
    assert [open_run(tmp_path, record), open_run(tmp_path, record)] == [False, True]


def test_exactly_what_differs_is_named(tmp_path: Path) -> None:
    open_run(tmp_path, RECORD)
    other = {"engine": {"name": "micro", "fingerprint": "cd34"}, "steps": 50, "scale": 7.5, "seed": 1}
    with pytest.raises(DiffcleanError) as raised:
        open_run(tmp_path, RunRecord(other, {"cat": 0, "eel": 1}))
    assert raised.value.message.splitlines()[1:] == [
        '  engine.fingerprint: "ab12" there, "cd34" asked for',
        "  steps: 20 there, 50 asked for",
        '  size: "source" there, nothing asked for',
        "  class_to_idx.dog: 1 there, nothing asked for",
        "  seed: nothing there, 1 asked for",
        "  class_to_idx.eel: nothing there, 1 asked for",
    ]
    assert "-o" in raised.value.hint
    assert read_run(tmp_path) == RECORD


def test_a_thousand_differences_are_cut_short(tmp_path: Path) -> None:
    open_run(tmp_path, RunRecord({}, {str(n): n for n in range(1000)}))
    with pytest.raises(DiffcleanError, match="and 980 more"):
        open_run(tmp_path, RunRecord({}, {}))


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
    (tmp_path / "run.json").write_text('{"format_version": 2}')
    with pytest.raises(DiffcleanError, match="upgrade"):
        read_run(tmp_path)


def test_source_and_output_apart(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    check_separate(source, tmp_path / "data-variations")
    check_separate(tmp_path / "link", tmp_path / "link-variations")
    for inside in (
        source / "out",
        source / "cat",
        source / "cat/not/yet",
        tmp_path / "link/out",
        tmp_path / "x/../data/y",
    ):
        with pytest.raises(DiffcleanError, match="inside the source"):
            check_separate(source, inside)
    with pytest.raises(DiffcleanError, match="inside the output"):
        check_separate(source, tmp_path)
    with pytest.raises(DiffcleanError, match="inside the output"):
        check_separate(tmp_path / "link/cat", source)
    for same in (source, tmp_path / "link", source / ".", source / "cat/.."):
        with pytest.raises(DiffcleanError, match="the source itself"):
            check_separate(source, same)
