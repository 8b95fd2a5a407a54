"""`state.json`: what counts as done."""

from __future__ import annotations

import json
from pathlib import Path

import disks
import pytest

from diffclean.data.atomic import WriteError, write_whole
from diffclean.errors import DiffcleanError
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.runner import Runner, telling_the_need
from diffclean.workflow.steps import Hands


@pytest.fixture
def outcome(tmp_path: Path) -> Path:
    return tmp_path / "teacher.pt"


def done(outcome: Path, seed: int, text: str = "weights") -> list[str]:
    """Which steps a new process does."""
    runner = Runner(Hands(), ledger=Ledger(outcome.parent))
    runner.do("train", lambda: outcome.write_text(text), outcome, {"seed": seed})
    return list(runner.seconds)


def test_a_step_is_done_once_and_again_where_what_it_is_made_of_changed(outcome: Path) -> None:
    assert done(outcome, 1) == ["train"]
    assert done(outcome, 1) == []
    assert done(outcome, 2) == ["train"]


def test_an_outcome_that_is_not_as_it_was_written_is_made_again_unless_people_may_change_it(outcome: Path) -> None:
    done(outcome, 1)
    outcome.write_text("something else")
    ledger = Ledger(outcome.parent)
    assert ledger.is_done(outcome, {"seed": 1}, editable=True)
    assert not ledger.is_done(outcome, {"seed": 1})
    outcome.unlink()
    assert not ledger.is_done(outcome, {"seed": 1}, editable=True)


def test_a_step_that_failed_is_not_done_and_its_time_counts(outcome: Path) -> None:
    def fail() -> None:
        outcome.write_text("half")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 # whichever
        Runner(Hands(), ledger=Ledger(outcome.parent)).do("train", fail, outcome, {"seed": 1})
    ledger = Ledger(outcome.parent)
    assert not ledger.is_done(outcome, {"seed": 1})
    assert list(ledger.seconds) == ["train"]
    assert ledger.done == []
    assert done(outcome, 1) == ["train"]
    assert Ledger(outcome.parent).done == ["train"]


def test_a_full_disk_is_told_by_the_file_that_had_no_room(tiny_disk: Path) -> None:
    """Not by `state.json`, which has no room either, but is not what the user waits for."""
    outcome = tiny_disk / "teacher.pt"

    def work() -> None:
        disks.fill(tiny_disk)
        write_whole(outcome, bytes(10))

    need = telling_the_need(tiny_disk, 5_000_000)
    with pytest.raises(WriteError, match=r"teacher\.pt': the disk is full") as raised, need:
        Runner(Hands(), ledger=Ledger(tiny_disk)).do("train", work, outcome, {"seed": 1})
    assert "Free some space and run the same command again" in raised.value.hint
    assert f"The whole job takes about 5 MB in {tiny_disk}; 0.0 MB are free there." in raised.value.hint
    (tiny_disk / disks.FILLER).unlink()
    assert done(outcome, 1) == ["train"]


def test_a_folder_is_kept_while_its_settings_are_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "variations"
    folder.mkdir()
    ledger = Ledger(tmp_path)
    ledger.begin("vary", folder, {"strength": 0.2})
    assert not folder.exists(), "nobody knows what this was made of"
    folder.mkdir()
    (folder / "cat.png").write_text("kept")
    Ledger(tmp_path).begin("vary", folder, {"strength": 0.2})
    assert (folder / "cat.png").exists()
    Ledger(tmp_path).begin("vary", folder, {"strength": 0.3})
    assert not folder.exists()


def test_what_is_forgotten_is_done_again(outcome: Path) -> None:
    done(outcome, 1)
    Ledger(outcome.parent).forget(["evaluate"])
    assert done(outcome, 1) == []
    Ledger(outcome.parent).forget(["train"])
    assert done(outcome, 1) == ["train"]


def test_what_a_person_changed_is_kept_when_it_has_to_be_made_anew(outcome: Path) -> None:
    def search(data: str) -> list[str]:
        runner = Runner(Hands(), ledger=Ledger(outcome.parent))
        runner.do("search", lambda: outcome.write_text(f"list of {data}"), outcome, {"data": data}, editable=True)
        return list(runner.seconds)

    assert search("old") == ["search"]
    outcome.write_text("my list")
    assert search("old") == []
    assert search("new") == ["search"]
    assert outcome.read_text() == "list of new"
    assert (outcome.parent / "teacher.edited.pt").read_text() == "my list"


@pytest.mark.parametrize("seconds", [10**400, -1, "long"])
def test_a_time_that_no_step_took_is_damage(outcome: Path, seconds: object) -> None:
    done(outcome, 1)
    path = outcome.parent / "state.json"
    content = json.loads(path.read_text())
    content["outcomes"]["teacher.pt"]["seconds"] = seconds
    path.write_text(json.dumps(content))
    with pytest.raises(DiffcleanError, match=r"state\.json is damaged"):
        Ledger(outcome.parent)
