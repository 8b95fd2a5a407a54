"""`variate` in several processes, each with its own part of the cores and its own engine.

Why: a small network's operators are too short to share. Its threads wait for one another after each, and wait long
where one of them lost its core to a thread that decodes; and Python runs the code around the engine on one core at a
time. A process a core has neither trouble.

The parent lists the images, hands them out in small lots, records what comes back, and alone writes the journal. A
child does what a run in one process does (`work`, `pipeline`), and when files are on disk, tells their rows. They talk
through pipes that nobody else can open. A child ends with its parent, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.in_flight import IN_FLIGHT
from diffclean.environment import memory_bytes, usable_cores
from diffclean.errors import DiffcleanError
from diffclean.variation.work import Job, Work

if TYPE_CHECKING:
    from diffclean.data.manifest import Row
    from diffclean.data.sources import ImageFolder
    from diffclean.families.registry import Recipe
    from diffclean.variation.settings import Opened, Settings

_SMALL_PX = 128
"""Of a larger square one batch has work enough for all cores."""
_MOST = 8
"""More would only cost memory: each then has several cores."""
_BYTES_EACH = 2**30
_WORTH_S = 20
"""A child takes some three seconds to start."""
_LOOK_S = 0.2
_LOT = 8
"""Jobs handed out at once."""
_QUEUE_BYTES = 4096
_PR_SET_PDEATHSIG = 1


def default_processes(opened: Opened, left: int) -> int:
    """How many processes are quickest for `left` windows."""
    if opened.engine.runtime.device != "cpu" or opened.engine.manifest.image_size > _SMALL_PX:
        return 1
    assert opened.settings.steps is not None
    seconds = left * (2 + opened.settings.steps) / 1000  # of two cores of 2023; only the order of magnitude matters
    if seconds < _WORTH_S:
        return 1
    available = memory_bytes()["available"]
    room = _MOST if available is None else available // _BYTES_EACH
    return int(max(1, min(opened.threads or usable_cores(), _MOST, room)))


@dataclass(frozen=True)
class Part:
    """All that a child is told once.

    Attributes:
        root: of the images.
        out, owner: see `Work`.
        recipe, settings: resolved.
        directory, runtime, precision, fingerprint: of the engine; the child's must be the same.
        cores: that the child keeps to; none: it is not told.
        threads: of the engine.
        workers: threads that read, and as many that write.
        parent: its process id.
    """

    root: Path
    out: Path
    owner: str
    recipe: Recipe
    settings: Settings
    directory: Path
    runtime: str
    precision: str
    fingerprint: str
    cores: frozenset[int]
    threads: int
    workers: int
    parent: int


def parts_of(
    images: ImageFolder, work: Work, opened: Opened, count: int, workers: int | None, threads: int | None
) -> list[Part]:
    """What each of `count` children is told; `workers` and `threads` are those of all together."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    shared = max(1, (threads or int(usable_cores())) // count)
    engine = opened.engine
    first = Part(
        root=images.root,
        out=work.out,
        owner=work.owner,
        recipe=opened.recipe,
        settings=opened.settings,
        directory=engine.directory,
        runtime=engine.runtime.name,
        precision=engine.runtime.precision,
        fingerprint=engine.manifest.fingerprint,
        cores=frozenset(),
        threads=shared,
        workers=max(1, (workers or len(cores)) // count),
        parent=os.getpid(),
    )
    if len(cores) < count:
        return [first] * count
    return [replace(first, cores=frozenset(cores[index::count])) for index in range(count)]


def side_by_side(
    parts: Sequence[Part],
    jobs: Iterable[Job],
    record: Callable[[Sequence[Row]], None],
    began: Callable[[], None],
    windows: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """Do all jobs in children, one a part.

    Args:
        parts: see `Part`.
        jobs: handed out in this order, to whoever is ready.
        record: told of finished rows, whose files are on disk; called from this thread.
        began: called when the first child has opened its engine.
        windows: told how many windows a child's batch held.
        stop: when set, what the children have in flight is finished and recorded, then this returns.

    Raises:
        DiffcleanError: what a child raised (a full disk, say), or a child was killed.
        Exception: a bug in a child.
    """
    lots = _Lots(jobs)
    # Locked by the child that decodes a picture larger than its part of the room; never written to.
    with tempfile.TemporaryFile() as shared:
        children = [_Child(part, shared.fileno(), len(parts)) for part in parts]
    try:
        for child in children:
            threading.Thread(target=child.feed, args=(lots, stop), daemon=True).start()
        at_work = {child.told: child for child in children}
        ready = told = False
        while at_work:
            for connection in wait(list(at_work), timeout=_LOOK_S):
                assert isinstance(connection, Connection)
                child = at_work[connection]
                try:
                    kind, content = connection.recv()
                except EOFError:
                    del at_work[connection]
                    if not stop.is_set():
                        raise child.died() from None
                    continue
                if kind == "rows":
                    record(content)
                elif kind == "windows":
                    windows(content)
                elif kind == "log":
                    logging.getLogger(content[0]).log(*content[1:])
                elif kind == "error":
                    raise content
                elif kind == "done":
                    del at_work[connection]
                elif not ready:  # "ready"
                    ready = True
                    began()
            if stop.is_set() and not told:
                told = True
                for child in children:
                    child.process.send_signal(signal.SIGTERM)
        if lots.problem is not None:
            raise lots.problem
    finally:
        for child in children:
            child.end()


class _Lots:
    """Lots of jobs, for whoever asks next; from several threads."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._asking = threading.Lock()
        self.problem: BaseException | None = None

    def next(self) -> list[Job]:
        """Empty: there are no more."""
        with self._asking:
            try:
                return list(itertools.islice(self._jobs, _LOT))
            except BaseException as error:
                self.problem = error
                return []


class _Child:
    """A child process, seen from the parent."""

    def __init__(self, part: Part, room: int, count: int) -> None:
        jobs_out, jobs_in = os.pipe()
        told_out, told_in = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # as short a queue as can be: what one child holds, no other can take
            fcntl.fcntl(jobs_in, fcntl.F_SETPIPE_SZ, _QUEUE_BYTES)
        package = str(Path(__file__).parents[2])
        numbers = f"{jobs_out}, {told_in}, {room}, {count}"
        code = f"import sys; sys.path.append({package!r}); from {__name__} import serve; serve({numbers})"
        try:
            self.process = subprocess.Popen(
                # -P: the folder that the user stands in may hold hostile files, and is no place for modules.
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what libraries print there must not get between the lines of --json
                pass_fds=(jobs_out, told_in, room),
                env=os.environ | {"OMP_NUM_THREADS": str(part.threads)},
            )
        finally:  # so that each side sees the other's end
            os.close(jobs_out)
            os.close(told_in)
        self.jobs, self.told = Connection(jobs_in, readable=False), Connection(told_out, writable=False)
        self._part = part

    def feed(self, lots: _Lots, stop: threading.Event) -> None:
        """Hand out lots until there are no more; the pipe holds a few, then this waits."""
        # A child that is gone is seen at the other pipe.
        with contextlib.suppress(OSError), self.jobs:
            self.jobs.send(self._part)
            while not stop.is_set() and (lot := lots.next()):
                self.jobs.send(lot)
            self.jobs.send([])

    def died(self) -> DiffcleanError:
        """What to say when it ended without a word."""
        code = self.process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"gone (exit code {code})"
        return DiffcleanError(
            f"A process of this run was {how}; was there too little memory?",
            "The same command resumes; with `processes` 1 it takes the least memory.",
        )

    def end(self) -> None:
        """See to it that it is gone."""
        self.process.kill()
        self.process.wait()
        self.told.close()


def serve(jobs_descriptor: int, told_descriptor: int, room: int, count: int) -> None:
    """The whole life of a child, one of `count`; `room` is what they lock to decode a large picture alone."""
    IN_FLIGHT.share(count, room)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group, and the parent decides
    jobs, told = Connection(jobs_descriptor, writable=False), Connection(told_descriptor, readable=False)
    telling = threading.Lock()

    def tell(kind: str, content: object = None) -> None:
        with telling:
            told.send((kind, content))

    try:
        part: Part = jobs.recv()
        _end_with(part.parent)
        if part.cores:
            os.sched_setaffinity(0, part.cores)
        _work(part, _received(jobs), tell, stop)
        tell("done")
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
    except BaseException as error:
        error.add_note("In a child process:\n" + traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(traceback.format_exc())
        with contextlib.suppress(BrokenPipeError):
            tell("error", error)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone (Linux; elsewhere the pipes tell, a little later)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we could ask
        raise EOFError


def _received(jobs: Connection) -> Iterator[Job]:
    while lot := jobs.recv():
        yield from lot


def _work(part: Part, jobs: Iterator[Job], tell: Callable[..., None], stop: threading.Event) -> None:
    """What a run in one process does, on this process's part."""
    from diffclean.export.opening import open_compiled
    from diffclean.variation.pipeline import Stages, stream
    from diffclean.variation.settings import Opened

    engine = open_compiled(part.directory, part.runtime, part.precision, part.threads)
    if engine.manifest.fingerprint != part.fingerprint:
        raise DiffcleanError(f"The engine in {part.directory} was changed while it was in use.", "Start again.")
    logging.basicConfig(handlers=[_Telling(tell)], level=logging.INFO)
    opened = Opened(part.recipe, engine, part.settings, part.threads)
    sampler = opened.sampler()
    images = part.settings.images(part.root)
    work = Work(images, part.out, part.owner, part.settings, sampler.image_size, part.fingerprint)

    def commit(rows: Sequence[Row]) -> None:
        work.writer.sync()
        tell("rows", rows)

    assert part.settings.batch is not None
    tell("ready")
    stages = Stages(work.prepare, sampler, opened.fallback, commit, partial(tell, "windows"))
    stream(jobs, stages, part.settings.batch, part.workers, stop)


class _Telling(logging.Handler):
    """Has the parent log it."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("log", (record.name, record.levelno, record.getMessage()))
