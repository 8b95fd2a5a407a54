"""The executor that runs several processes side by side, each with its own part of the cores and its own station.

Processes are faster for small networks, whose operators are too short to be shared among threads. Such threads wait for
one another after each operator, and wait long if one of them lost its core to a thread that decodes. Moreover, Python
runs the code around the engine on one core at a time. One process for each core avoids both problems.

`concurrent.futures.ProcessPoolExecutor` is not used for three reasons. Its workers do one call at a time, so a station
would be idle between two lots of jobs, where it should read ahead and write behind. It runs the caller's main script
again in each worker, which fails for a script without a `__main__` guard. And its workers import modules from the
working directory, which may be a hostile data set.

The parent hands out jobs in small lots through pipes that no other process can open, and records what comes back. A
child ends when its parent ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from diffclean.environment import usable_cores
from diffclean.errors import DiffcleanError
from diffclean.execution.base import AnyTask, Job, Outcome, Share, Task

_LOOK_S = 0.2
_LOT = 8
"""The number of jobs that are handed out at once."""
_QUEUE_BYTES = 4096
_CHILD = "diffclean.execution.child"


@dataclass(frozen=True)
class Order:
    """What a child receives at its start.

    Attributes:
        task: the task to open.
        share: the child's share of the machine.
        cores: the cores that the child is bound to; if empty, it is not bound.
        parent: the process id of the parent.
    """

    task: AnyTask
    share: Share
    cores: frozenset[int]
    parent: int


@dataclass(frozen=True)
class Processes:
    """An executor with a number of processes, which divide the share among them.

    Attributes:
        count: the number of processes.
        share: the share that all of them have together.
    """

    count: int
    share: Share
    elsewhere = True

    def run(
        self,
        task: Task[Job, Outcome],
        jobs: Iterable[Job],
        record: Callable[[Sequence[Outcome]], None],
        began: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """See `Executor.run`."""
        lots = _Lots(jobs)
        # The child that needs more memory than its part locks this file. Nothing is written to it.
        with tempfile.TemporaryFile() as alone:
            children = [_Child(order) for order in self._orders(task, alone.fileno())]
        try:
            for child in children:
                threading.Thread(target=child.feed, args=(lots, stop), daemon=True).start()
            _listen(children, record, began, stop)
            if lots.problem is not None:
                raise lots.problem
        finally:
            for child in children:
                child.end()

    def _orders(self, task: AnyTask, alone: int) -> list[Order]:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = max(1, (self.share.threads or int(usable_cores())) // self.count)
        workers = max(1, (self.share.workers or len(cores)) // self.count)
        enough = len(cores) >= self.count
        own = [frozenset(cores[index :: self.count] if enough else ()) for index in range(self.count)]
        share = Share(threads, workers, self.count, alone)
        return [Order(task, share, each, os.getpid()) for each in own]


def _listen(
    children: Sequence[_Child],
    record: Callable[[Sequence[Any]], None],
    began: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Handle the messages of the children until the last of them is done."""
    at_work = {child.messages: child for child in children}
    ready = stopping = False
    while at_work:
        for connection in wait(list(at_work), timeout=_LOOK_S):
            assert isinstance(connection, Connection)
            try:
                kind, content = connection.recv()
            except EOFError:
                gone = at_work.pop(connection)
                if not stop.is_set():
                    raise gone.died() from None
                continue
            if kind == "outcomes":
                record(content)
            elif kind == "log":
                logging.getLogger(content[0]).log(*content[1:])
            elif kind == "error":
                raise content
            elif kind == "done":
                del at_work[connection]
            elif not ready:  # "ready"
                ready = True
                began()
        if stop.is_set() and not stopping:
            stopping = True
            for child in children:
                child.process.send_signal(signal.SIGTERM)


class _Lots:
    """Lots of jobs for the children; used from several threads."""

    def __init__(self, jobs: Iterable[Any]) -> None:
        self._jobs = iter(jobs)
        self._asking = threading.Lock()
        self.problem: BaseException | None = None

    def next(self) -> list[Any]:
        """The next lot; empty if there are no more jobs."""
        with self._asking:
            try:
                return list(itertools.islice(self._jobs, _LOT))
            except BaseException as error:
                self.problem = error
                return []


class _Child:
    """A child process, as the parent sees it."""

    def __init__(self, order: Order) -> None:
        jobs_out, jobs_in = os.pipe()
        messages_out, messages_in = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # a short queue, because no other child can take what is in this pipe
            fcntl.fcntl(jobs_in, fcntl.F_SETPIPE_SZ, _QUEUE_BYTES)
        package = str(Path(__file__).parents[2])
        code = f"import sys; sys.path.append({package!r}); from {_CHILD} import serve; serve({jobs_out}, {messages_in})"
        try:
            self.process = subprocess.Popen(
                # -P: modules are not imported from the working directory, which may hold hostile files.
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what libraries print must not get into the output of --json
                pass_fds=[jobs_out, messages_in, *([] if order.share.alone is None else [order.share.alone])],
                env=os.environ | {"OMP_NUM_THREADS": str(order.share.threads)},
            )
        finally:  # these must be closed for each side to notice when the other one ends
            os.close(jobs_out)
            os.close(messages_in)
        self.jobs, self.messages = Connection(jobs_in, readable=False), Connection(messages_out, writable=False)
        self._order = order

    def feed(self, lots: _Lots, stop: threading.Event) -> None:
        """Hand out lots until there are no more. The pipe holds a few of them; when it is full, this waits."""
        # A child that has ended is noticed at the other pipe.
        with contextlib.suppress(OSError), self.jobs:
            self.jobs.send(self._order)
            while not stop.is_set() and (lot := lots.next()):
                self.jobs.send(lot)
            self.jobs.send([])

    def died(self) -> DiffcleanError:
        """The error for a child that ended without reporting one."""
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return DiffcleanError(
            f"A process of this run {how}; there may not be enough memory.",
            "To continue, type the same command again; with `processes` 1 it takes the least memory.",
        )

    def end(self) -> None:
        """Kill the process if it still runs, and wait for its end."""
        self.process.kill()
        self.process.wait()
        self.messages.close()
