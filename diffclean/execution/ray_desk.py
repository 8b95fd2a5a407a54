"""The actor of `ray_actors`: a station, and the desk at which the driver hands it jobs and takes its outcomes.

The station works in a thread of its own. The driver calls `exchange` again and again; each call brings a lot of jobs if
the last answer asked for one, and takes what there is to tell. A lot is asked for as soon as less than one is waiting,
so that the station has the next lot while it works on the last one.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffclean.environment import usable_cores
from diffclean.execution.base import AnyTask, Share
from diffclean.execution.child import Telling, sendable
from diffclean.execution.ray_cluster import Needs

_PATIENCE_S = 5.0
"""The seconds after which a call is answered even if there is nothing to tell."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Said:
    """The answer of an actor.

    Attributes:
        news: what happened since the last answer, in order: (kind, content).
        wants: whether it wants another lot of jobs.
    """

    news: list[tuple[str, Any]]
    wants: bool


class Desk:
    """An actor with one station.

    Args:
        task: opens the station.
        needs: what the actor occupies.
        share: what the user gave of `Share`; None in it stands for this actor's part of its node.
        lot: the number of jobs in a lot.
    """

    def __init__(self, task: AnyTask, needs: Needs, share: Share, lot: int) -> None:
        self._task, self._needs, self._share, self._lot = task, needs, share, lot
        self._jobs: deque[Any] = deque()
        self._no_more = self._is_open = False
        self._news: list[tuple[str, Any]] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def exchange(self, jobs: Sequence[Any] | None) -> Said:
        """Take jobs, wait for news, and tell them.

        Args:
            jobs: the next jobs; empty if none were asked for; None if there are no more.
        """
        with self._changed:
            if jobs is None:
                self._no_more = True
            else:
                self._jobs.extend(jobs)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._news or self._wants, timeout=_PATIENCE_S)
            news, self._news = self._news, []
            return Said(news, self._wants)

    def stop(self) -> None:
        """Finish what is in flight; jobs that were not begun are left."""
        self._stop.set()
        with self._changed:
            self._jobs.clear()
            self._no_more = True
            self._changed.notify_all()

    @property
    def _wants(self) -> bool:
        return self._is_open and not self._no_more and len(self._jobs) < self._lot

    def _tell(self, kind: str, content: object = None) -> None:
        with self._changed:
            self._news.append((kind, content))
            self._changed.notify_all()

    def _serve(self) -> None:
        logger = logging.getLogger("diffclean")
        logger.setLevel(logging.INFO)
        logger.handlers = [Telling(self._tell)]
        logger.propagate = False
        try:
            node = _Node.here()
            self._tell("began", node.name)
            try:
                self._task.check()
            except Exception as error:
                self._tell("unfit", sendable(error))
                return
            station = self._task.open(node.share(self._needs, self._share))
            with self._changed:
                self._is_open = True
            self._tell("ready")
            station.work(self._received(), partial(self._tell, "outcomes"), self._stop)
            self._tell("done")
        except BaseException as error:
            self._tell("error", sendable(error))

    def _received(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._no_more)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                self._changed.notify_all()
            yield job


@dataclass(frozen=True)
class _Node:
    """The node that an actor runs on.

    Attributes:
        name: the id by which Ray knows it.
        resources: what it offers to Ray.
    """

    name: str
    resources: dict[str, float]

    @classmethod
    def here(cls) -> _Node:
        import ray

        name = ray.get_runtime_context().get_node_id()
        return cls(name, next((node["Resources"] for node in ray.nodes() if node["NodeID"] == name), {}))

    def share(self, needs: Needs, given: Share) -> Share:
        """An actor's part of this node: as many threads as it occupies CPUs, and its part of the reading threads."""
        actors = max(1, needs.fit(self.resources))
        cores = max(1, int(usable_cores()) // actors)
        threads = given.threads or (cores if needs.gpus else max(1, int(needs.cpus)))
        workers = given.workers or min(_MOST_WORKERS, max(1, cores))
        return Share(threads, workers, actors)
