"""What every executor owes, on a task that has nothing to do with images."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from small_cluster import NODE, small_cluster, wait_for_the_end
from squares import Square, Squares

from diffclean.data.keys import NameCollisionError
from diffclean.errors import DiffcleanError, MissingExtraError, UsageError
from diffclean.execution.base import Executor, Share
from diffclean.execution.child import sendable
from diffclean.execution.here import Here
from diffclean.execution.processes import Processes
from diffclean.execution.ray_actors import Ray
from diffclean.execution.ray_cluster import Needs, OnRay, connected

EXECUTORS = {"here": Here(Share(threads=2)), "processes": Processes(2, Share(threads=2, workers=2))}
RAY = pytest.param("ray", marks=pytest.mark.cluster)


@pytest.fixture(autouse=True)
def _children_find_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1] / 'support'}:{os.environ.get('PYTHONPATH', '')}")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes."""
    pytest.importorskip("ray", reason="ray is not installed, or has no wheel for this Python")
    with small_cluster(2) as nodes:
        yield nodes


@pytest.fixture
def on_ray(nodes: Any) -> Iterator[Ray]:
    with connected(OnRay(nodes.address)) as cluster:
        assert cluster is not None
        yield Ray(cluster, Share(), lot=16)


@pytest.fixture(params=[*EXECUTORS, RAY])
def executor(request: pytest.FixtureRequest) -> Executor:
    found: Executor = EXECUTORS.get(request.param) or request.getfixturevalue("on_ray")
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


@pytest.mark.cluster
def test_both_nodes_work(on_ray: Ray) -> None:
    recorder = Recorder()

    def until_both_were_seen() -> Iterator[int]:
        yield from takewhile(lambda _: len({process for _, process, _ in recorder.found}) < 2, range(10_000_000))

    recorder.of(on_ray, until_both_were_seen())
    assert len({process for _, process, _ in recorder.found}) == 2
    assert recorder.squares == [number * number for number in range(len(recorder.found))]


@pytest.mark.cluster
def test_a_node_that_is_added_later_works_too(on_ray: Ray, nodes: Any) -> None:
    recorder = Recorder()
    added = []

    def until_a_third_was_seen() -> Iterator[int]:
        for number in range(10_000_000):
            processes = {process for _, process, _ in recorder.found}
            if len(processes) == 2 and not added:
                added.append(nodes.add_node(**NODE))
            if len(processes) == 3:
                return
            yield number

    try:
        recorder.of(on_ray, until_a_third_was_seen())
    finally:
        nodes.remove_node(added[0])
    assert recorder.squares == [number * number for number in range(len(recorder.found))]


@pytest.mark.cluster
def test_no_more_actors_than_were_asked_for(on_ray: Ray) -> None:
    found = Recorder().of(replace(on_ray, most=1), range(1001)).found
    assert len({process for _, process, _ in found}) == 1


@pytest.mark.cluster
def test_a_job_that_ends_its_actor_each_time_is_given_up(on_ray: Ray) -> None:
    recorder = Recorder()
    with pytest.raises(DiffcleanError, match=r"3 actors have ended while they worked on the same images") as caught:
        recorder.of(on_ray, range(1000), Squares(dies_at=500))
    assert "`batch`" in caught.value.hint
    assert 500 * 500 not in recorder.squares
    assert len(recorder.squares) == len(set(recorder.squares))
    wait_for_the_end(os.getpid())


@pytest.mark.cluster
def test_nodes_that_cannot_work_are_named_before_the_work(on_ray: Ray) -> None:
    recorder = Recorder()
    with pytest.raises(DiffcleanError, match=r"(?s)2 of 2 nodes cannot work on this run:.*It is not at home") as caught:
        recorder.of(on_ray, range(1000), Squares(home=os.getpid()))
    assert caught.value.hint == "Stay at home."
    assert recorder.found == []


@pytest.mark.cluster
def test_a_cluster_without_gpus(nodes: Any) -> None:
    with (
        pytest.raises(DiffcleanError, match=r"needs 1 CPU and 1 GPU, and no node .*: of its 2 nodes") as caught,
        connected(OnRay(nodes.address, gpus=1)),
    ):
        pass
    assert "`num_gpus` 0" in caught.value.hint


@pytest.mark.cluster
def test_a_node_that_is_waited_for(nodes: Any) -> None:
    """As an autoscaler would start it, which learns of actors that find no room."""
    recorder = Recorder()
    with connected(OnRay(nodes.address, cpus=2, wait_s=600)) as cluster:
        assert cluster is not None
        assert cluster.room() == 0
        executor = Ray(cluster, Share(), lot=4)
        with ThreadPoolExecutor(1) as pool:  # a node can be added from the main thread only
            running = pool.submit(recorder.of, executor, range(100))
            added = nodes.add_node(**NODE | {"num_cpus": 2})
            found = running.result().found
        nodes.remove_node(added)
    assert {threads for _, _, threads in found} == {2}
    assert len(recorder.squares) == 100


def test_an_address_without_a_cluster() -> None:
    pytest.importorskip("ray", reason="ray is not installed, or has no wheel for this Python")
    with (
        pytest.raises(DiffcleanError, match=r"no Ray cluster at 127\.0\.0\.1:1 ") as caught,
        connected(OnRay("127.0.0.1:1")),
    ):
        pass
    assert "ray start --head" in caught.value.hint


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffclean\[ray\]'"), connected(OnRay()):
        pass


@pytest.mark.parametrize("gpus", [-1, 1.5])
def test_gpus_that_an_actor_cannot_have(gpus: float) -> None:
    with pytest.raises(UsageError, match="`num_gpus`"):
        Needs(1, gpus)


@pytest.mark.parametrize(
    ("needs", "resources", "actors"),
    [
        (Needs(1), {"CPU": 8.0}, 8),
        (Needs(4), {"CPU": 7.0}, 1),
        (Needs(1, 1), {"CPU": 8.0, "GPU": 2.0}, 2),
        (Needs(1, 0.1), {"CPU": 64.0, "GPU": 3.0}, 30),
        (Needs(1, 1), {"CPU": 8.0}, 0),
        (Needs(1), {}, 0),
    ],
)
def test_how_many_actors_a_node_holds(needs: Needs, resources: dict[str, float], actors: int) -> None:
    assert needs.fit(resources) == actors


@pytest.mark.parametrize(
    "error",
    [
        DiffcleanError("what was found", "what to type"),
        MissingExtraError("ray", "ray"),
        NameCollisionError(["a and b"], "Rename one."),
    ],
)
def test_an_error_of_a_user_stays_one_on_its_way_to_another_process(error: DiffcleanError) -> None:
    assert type(sendable(error)) is type(error)
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), there.hint) == (type(error), str(error), error.hint)
