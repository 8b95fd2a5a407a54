"""What every executor owes, on a task that has nothing to do with images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event

import pytest
from squares import Square, Squares

from diffclean.errors import DiffcleanError
from diffclean.execution.base import Executor, Share
from diffclean.execution.here import Here
from diffclean.execution.processes import Processes

EXECUTORS = {"here": Here(Share(threads=2)), "processes": Processes(2, Share(threads=2, workers=2))}


@pytest.fixture(autouse=True)
def _children_find_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1] / 'support'}:{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = EXECUTORS[request.param]
    return found


class Recorder:
    """Keeps what it is told; can stop the run after so many."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.found: list[Square] = []
        self.begun = 0
        self.stop = Event()
        self._stop_after = stop_after

    def record(self, squares: Iterable[Square]) -> None:
        self.found += squares
        if self._stop_after is not None and len(self.found) >= self._stop_after:
            self.stop.set()

    def began(self) -> None:
        assert self.found == []
        self.begun += 1

    def of(self, executor: Executor, jobs: Iterable[int], task: Squares | None = None) -> Recorder:
        executor.run(task or Squares(), jobs, self.record, self.began, self.stop)
        return self

    @property
    def squares(self) -> list[int]:
        return sorted(square for square, _, _ in self.found)


def test_every_job_is_done_once_and_the_beginning_is_said_once(executor: Executor) -> None:
    recorder = Recorder().of(executor, range(1001))
    assert recorder.squares == [number * number for number in range(1001)]
    assert recorder.begun == 1


def test_the_share_is_divided_among_processes_that_are_not_this_one(executor: Executor) -> None:
    found = Recorder().of(executor, range(1001)).found
    processes, threads = {process for _, process, _ in found}, {threads for _, _, threads in found}
    assert (os.getpid() in processes) is not executor.elsewhere
    assert threads == ({1} if executor.elsewhere else {2})


def test_no_jobs(executor: Executor) -> None:
    assert Recorder().of(executor, []).squares == []


def test_jobs_are_taken_as_they_are_needed(executor: Executor) -> None:
    """Of a set of a billion, a list is never made: a stop leaves most of it untouched."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    recorder = Recorder(stop_after=10).of(executor, endless())
    assert 10 <= len(recorder.found) <= taken + 1 < 100_000
    assert recorder.squares == sorted(set(recorder.squares))


def test_an_error_of_a_station_comes_out_as_it_is(executor: Executor) -> None:
    recorder = Recorder()
    with pytest.raises(DiffcleanError, match=r"37 cannot be squared") as caught:
        recorder.of(executor, range(1000), Squares(fails_at=37))
    assert caught.value.hint == "Leave it out."
    assert 37 * 37 not in recorder.squares


def test_an_error_of_the_jobs_comes_out_as_it_is(executor: Executor) -> None:
    def broken() -> Iterator[int]:
        yield from range(20)
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        Recorder().of(executor, broken())


def test_a_process_that_dies_without_a_word_is_missed() -> None:
    recorder = Recorder()
    with pytest.raises(DiffcleanError, match=r"ended with exit code 7"):
        recorder.of(EXECUTORS["processes"], range(1000), Squares(dies_at=500))
    assert 500 * 500 not in recorder.squares
