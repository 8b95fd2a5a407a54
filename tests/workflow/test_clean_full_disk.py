"""A disk that is full in every part of the job: what was done stays, and the same call goes on once there is room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import disks
import pytest

from diffclean.classifiers import checkpoints
from diffclean.data.atomic import WriteError
from diffclean.progress import NoProgress
from diffclean.workflow.clean import CleanResult, clean
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.prepare import prepare
from diffclean.workflow.steps import Hands


class FillsAt(NoProgress):
    """Fills the disk when the task of that number begins."""

    def __init__(self, number: int, disk: Path) -> None:
        self.left, self.disk = number, disk

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """One more task."""
        self.left -= 1
        if self.left == 0:
            disks.fill(self.disk)


def finished(config: CleanConfig, progress: NoProgress | None = None) -> CleanResult:
    return clean(prepare(config, Hands()), Hands(progress))


def outcome(done: CleanResult) -> tuple[object, ...]:
    assert done.student is not None
    assert done.suspects is not None
    weights = {name: value.tolist() for name, value in checkpoints.load(done.student).model.state_dict().items()}
    return weights, done.suspects.keys, (done.out / "cleaned.csv").read_text()


@pytest.mark.slow
def test_the_disk_is_full_again_and_again_and_the_outcome_is_the_same(config: CleanConfig) -> None:
    """Files that were half written when there was no more room are not taken for whole ones."""
    alone = outcome(finished(config))
    with disks.mounted("24m") as disk:
        config = replace(config, out=disk / "job")
        fulls = []
        for number in (1, *[2] * 12):
            try:
                finished(config, FillsAt(number, disk))
                break
            except WriteError as error:
                fulls.append(error)
            finally:
                (disk / disks.FILLER).unlink(missing_ok=True)
        assert len(fulls) >= 5
        assert all("the disk is full" in error.message for error in fulls)
        assert all("run the same command again" in error.hint for error in fulls)
        assert outcome(finished(config)) == alone
        assert list(disk.rglob("*.part")) == []
