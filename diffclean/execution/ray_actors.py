"""The executor that works on a Ray cluster, with one station in each actor.

The driver keeps the records. Each actor has one call of its `exchange` in flight, which brings jobs and takes outcomes
(`ray_desk`). The driver remembers which jobs each actor holds; when an actor is lost, with or without its node, the
jobs whose outcomes were not recorded go to the next actor that asks. An actor is started wherever the cluster has room,
so nodes may come and go during the run. A few more actors than there is room for are asked for, which is how an
autoscaler learns that another node would be used. An actor ends when there are no more jobs, which frees its node.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from diffclean.errors import DiffcleanError
from diffclean.execution.base import AnyTask, Job, Outcome, Share, Task
from diffclean.execution.ray_cluster import Cluster, first_line
from diffclean.execution.ray_desk import Desk, Said

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_HIRE_S = 5
_MOST_LOSSES = 3
"""A job that was held by this many actors that ended while their nodes lived is not tried again."""
Held = tuple[Any, int]
"""A job, and how many actors ended while they held it."""


@dataclass(frozen=True)
class Ray:
    """An executor with an actor wherever a cluster has room for one.

    Attributes:
        cluster: the cluster.
        share: what the user gave of each actor's `Share`.
        lot: the number of jobs that are handed out at once; about as many as a station does at once.
        most: the largest number of actors; None stands for as many as the cluster holds.
    """

    cluster: Cluster
    share: Share
    lot: int
    most: int | None = None
    elsewhere = True

    def run(
        self,
        task: Task[Job, Outcome],
        jobs: Iterable[Job],
        record: Callable[[Sequence[Outcome]], None],
        began: Callable[[], None],
        stop: Event,
    ) -> None:
        """See `Executor.run`. Lost actors and nodes are replaced.

        Raises:
            DiffcleanError: also if a node cannot work on the task, no node is left, or the same jobs end actors again
                and again.
        """
        self.cluster.wait_for_room()
        self.cluster.check(task)
        crew = _Crew(self, task, _Lots(jobs, self.lot), record, began)
        try:
            crew.work(stop)
        finally:
            crew.dismiss()


class _Lots:
    """The jobs that no actor holds."""

    def __init__(self, jobs: Iterable[Any], size: int) -> None:
        self._jobs = iter(jobs)
        self._size = size
        self._waiting: deque[Held] = deque()

    def next(self) -> list[Held]:
        """The next lot; empty if there are no more jobs."""
        self._look_ahead(self._size)
        return [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]

    def give_back(self, jobs: Iterable[Held]) -> None:
        """Take jobs back; they are the next that are handed out."""
        self._waiting.extendleft(reversed(list(jobs)))

    def count(self, most: int) -> int:
        """The number of lots that are left, or `most` if there are more."""
        self._look_ahead(most * self._size)
        return min(most, -(-len(self._waiting) // self._size))

    def _look_ahead(self, jobs: int) -> None:
        self._waiting.extend((job, 0) for job in itertools.islice(self._jobs, max(0, jobs - len(self._waiting))))


@dataclass(eq=False)
class _Actor:
    """An actor, as the driver sees it.

    Attributes:
        desk: the handle of the actor.
        node: the id of its node; "" as long as it was not started.
        is_ready: whether its station is open.
        is_over: whether no more jobs are handed to it.
        held: the jobs that it has and whose outcomes are not recorded.
    """

    desk: Any
    node: str = ""
    is_ready: bool = False
    is_over: bool = False
    held: list[Held] = field(default_factory=list)


class _Crew:
    """The actors of a run."""

    def __init__(
        self,
        executor: Ray,
        task: AnyTask,
        lots: _Lots,
        record: Callable[[Sequence[Any]], None],
        began: Callable[[], None],
    ) -> None:
        self._executor, self._cluster, self._task, self._lots = executor, executor.cluster, task, lots
        self._record, self._began = record, began
        self._calls: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._unfit: list[_Actor] = []
        self._has_begun = self._is_stopping = False
        self._stillborn = 0
        self._hire_at = 0.0

    def work(self, stop: Event) -> None:
        """Have everything done, or what is in flight if `stop` is set."""
        import ray

        while True:
            if stop.is_set() and not self._is_stopping:
                self._stop()
            if not self._is_stopping:
                self._hire()
            if not self._calls and (self._is_stopping or not self._lots.count(1)):
                return
            answered, _ = ray.wait(list(self._calls), timeout=_LOOK_S) if self._calls else ([], [])
            if answered:  # Take all answers that are there, so that they are recorded at once.
                answered, _ = ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
                self._hear([(self._calls.pop(call), call) for call in answered])

    def dismiss(self) -> None:
        """End all actors."""
        while self._actors:
            self._end(self._actors[-1])

    def _stop(self) -> None:
        self._is_stopping = True
        for call, actor in list(self._calls.items()):
            if actor.is_ready:
                actor.desk.stop.remote()
            else:
                self._end(self._calls.pop(call))

    def _hire(self) -> None:
        """Start actors where there is room and work for them; dismiss those that were not needed in the end."""
        import ray

        waiting = self._lots.count(1)
        if not waiting:
            for call, actor in list(self._calls.items()):
                if not actor.is_ready:
                    self._end(self._calls.pop(call))
            return
        if time.monotonic() < self._hire_at:
            return
        self._hire_at = time.monotonic() + _HIRE_S
        room = self._cluster.wait_for_room()
        if self._unfit and len(self._unfit) >= room and not any(actor.is_ready for actor in self._calls.values()):
            raise DiffcleanError("No node of the Ray cluster that is left can work on this run.", "See docs/scale.md.")
        wanted = room + max(1, room // 2)
        if self._executor.most is not None:
            wanted = min(wanted, self._executor.most + len(self._unfit))
        missing = max(0, wanted - len(self._calls) - len(self._unfit))
        needs = self._cluster.needs
        hired = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0, max_concurrency=2)(Desk)
        for _ in range(self._lots.count(missing)):
            actor = _Actor(hired.remote(self._task, needs, self._executor.share, self._executor.lot))
            self._actors.append(actor)
            self._call(actor, [])

    def _call(self, actor: _Actor, jobs: list[Held] | None) -> None:
        if jobs:
            actor.held += jobs
        given = None if jobs is None else [job for job, _ in jobs]
        self._calls[actor.desk.exchange.remote(given)] = actor

    def _end(self, actor: _Actor) -> None:
        import ray

        self._actors.remove(actor)
        ray.kill(actor.desk)

    def _hear(self, answers: Sequence[tuple[_Actor, Any]]) -> None:
        """Record what actors say, then answer them."""
        import ray

        said: list[tuple[_Actor, Said]] = []
        for actor, call in answers:
            try:
                said.append((actor, ray.get(call)))
            except ray.exceptions.RayTaskError as error:  # a bug
                raise error.cause from error
            except ray.exceptions.RayError as error:  # the actor is gone, or its answer with its node
                self._lost(actor, error)
        outcomes = [(actor, content) for actor, each in said for kind, content in each.news if kind == "outcomes"]
        if outcomes:
            self._record([outcome for _, some in outcomes for outcome in some])
        for actor, some in outcomes:
            left = self._task.rest([job for job, _ in actor.held], some)
            actor.held = [(job, losses) for job, (_, losses) in zip(left, actor.held, strict=True) if job is not None]
        for actor, each in said:
            for kind, content in each.news:
                self._heed(actor, kind, content)
            if not actor.is_over:
                self._answer(actor, each.wants)

    def _heed(self, actor: _Actor, kind: str, content: Any) -> None:
        if kind == "log":
            logging.getLogger(content[0]).log(*content[1:])
        elif kind == "error":
            raise content
        elif kind == "began":
            actor.node = content
        elif kind == "unfit":  # It stays where it is, so that no other actor is started on that node.
            actor.is_over = True
            self._unfit.append(actor)
            log.warning("Node %s cannot be used: %s", self._cluster.address_of(actor.node), first_line(content))
        elif kind == "done":
            actor.is_over = True
            self._end(actor)
        elif kind == "ready":
            actor.is_ready, self._stillborn = True, 0
            if not self._has_begun:
                self._has_begun = True
                self._began()

    def _answer(self, actor: _Actor, wants: bool) -> None:
        if self._is_stopping or not wants:
            self._call(actor, [])
        else:
            self._call(actor, self._lots.next() or None)

    def _lost(self, actor: _Actor, error: BaseException) -> None:
        """Give the jobs of a lost actor back.

        Raises:
            DiffcleanError: actors end again and again, before they are ready or with the same jobs.
        """
        self._end(actor)  # it may only have been out of reach
        self._hire_at = 0
        by_itself = not actor.node or self._cluster.is_alive(actor.node)
        where = self._cluster.address_of(actor.node)
        log.warning(
            "%s was lost (%s); the %d images that it held are made again.",
            f"An actor on {where}" if by_itself else f"The node {where}",
            first_line(error),
            len(actor.held),
        )
        if by_itself and not actor.is_ready:
            self._stillborn += 1
            if self._stillborn >= _MOST_LOSSES:
                raise DiffcleanError(
                    f"{self._stillborn} actors in a row ended before they had opened the engine: {first_line(error)}",
                    "There may not be enough memory. More `threads` for each actor mean fewer actors on a node.",
                )
        held = [(job, losses + by_itself) for job, losses in actor.held]
        if any(losses >= _MOST_LOSSES for _, losses in held):
            raise DiffcleanError(
                f"{_MOST_LOSSES} actors have ended while they worked on the same images, most likely because there was "
                f"not enough memory: {first_line(error)}",
                "More `threads` for each actor mean fewer actors on a node, and a smaller `batch` takes less memory. "
                "To continue, type the same command again.",
            )
        self._lots.give_back(held)
