"""The streaming pipeline.

Reading, sampling and writing overlap, and memory is bounded whatever the length of the source.

Three stages run at the same time. A thread pool reads and decodes ahead, in order, by at most two batches. The calling
thread fills batches of fixed size with windows, across pictures, and runs the sampler. A second pool encodes and
writes, and a single committer thread records the finished pictures of each batch in the journal, in order, after their
files are on disk. A slow stage makes the one before it wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from diffclean.data.manifest import Row, Status
from diffclean.data.pixels import Pixels
from diffclean.families.seeds import window_seed
from diffclean.variation.ahead import Job, ahead
from diffclean.variation.gate import Gate
from diffclean.variation.picture import Picture, Slot

if TYPE_CHECKING:
    from torch import Tensor


class Generator(Protocol):
    """The part of a sampler that the pipeline needs."""

    image_size: int

    def generate(
        self, pixels: Tensor, seeds: Sequence[int], own: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8, seeds and source pixels -> (B, S, S, 3) uint8 and (B,) bool, whether all is finite."""


@dataclass(frozen=True)
class Stages(Generic[Job]):
    """What to do with each job.

    Attributes:
        prepare: turns a job into slots to regenerate, or into finished rows if it failed; called from several threads.
        generator: the sampler.
        fallback: creates the sampler that repeats images whose values were not finite; None if there is no other.
        commit: records finished rows; called in order from one thread.
        tell: called after each batch with its number of windows, the seconds that the sampler took, and the seconds
            since the batch before or, for the first one, since the start; None if this is not needed.
        gate: decides which pictures are good enough; None if all are.
    """

    prepare: Callable[[Job], Sequence[Slot | Row]]
    generator: Generator
    fallback: Callable[[], Generator] | None
    commit: Callable[[Sequence[Row]], None]
    tell: Callable[[int, float, float], None] | None = None
    gate: Gate | None = None


def stream(jobs: Iterable[Job], stages: Stages[Job], batch: int, workers: int, stop: Event | None = None) -> None:
    """Run all jobs through the stages.

    Args:
        jobs: the jobs, in the order in which they are to be done.
        stages: the stages, see `Stages`.
        batch: the number of windows in a batch of the engine; the last batch is padded to it.
        workers: the number of threads in each pool.
        stop: when set, the batch that is prepared is finished and recorded, then `stream` returns. A picture that needs
            more than one further batch is abandoned, and so is one that the gate wants to be made again.

    Raises:
        Exception: whatever a stage raises, for example because the disk is full. Batches recorded before stay recorded.
    """
    stop = stop or Event()
    runner = _BatchRunner(stages, batch)
    with (
        pool(workers, "read") as readers,
        pool(workers, "write") as writers,
        pool(1, "commit") as committer,
    ):
        commits: deque[Future[None]] = deque()
        try:
            with closing(ahead(readers, stages.prepare, jobs, 2 * batch, stop)) as entries:
                for group in _groups(entries, batch, runner.again, stop):
                    if finished := _finished(group, runner, writers):
                        commits.append(committer.submit(_commit, stages.commit, finished))
                    while len(commits) > 2 or (commits and commits[0].done()):
                        commits.popleft().result()
            while commits:
                commits.popleft().result()
        except BaseException:
            stop.set()
            for each in (readers, writers, committer):
                each.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def pool(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in which torch uses one thread only, because the sampler needs the cores.

    The threads are awaited at the end, but not after an interrupt: a reader may need a minute for one image.
    """
    import torch

    whole = torch.get_num_threads()
    executor = ThreadPoolExecutor(threads, name, initializer=torch.set_num_threads, initargs=(1,))
    at_once = False
    try:
        yield executor
    except KeyboardInterrupt:
        at_once = True
        raise
    finally:
        executor.shutdown(wait=not at_once, cancel_futures=at_once)
        torch.set_num_threads(whole)  # the setting of a thread is also inherited by threads that are started later


def _commit(commit: Callable[[Sequence[Row]], None], rows: Sequence[Row | Future[Row]]) -> None:
    commit([row.result() if isinstance(row, Future) else row for row in rows])


@dataclass(frozen=True, slots=True)
class _Piece:
    """One window of a picture."""

    picture: Picture
    number: int

    @property
    def seed(self) -> int:
        return window_seed(self.picture.seed, self.number)


def _groups(
    entries: Iterator[Slot | Row], batch: int, again: deque[Picture], stop: Event
) -> Iterator[list[_Piece | Row]]:
    """The batches of all entries, and of the pictures that are put into `again` while the batches are run."""
    yield from _batches(_pieces(entries, batch, again, stop), batch)
    while again and not stop.is_set():
        yield from _batches(_pieces(iter(()), batch, again, stop), batch)


def _pieces(entries: Iterator[Slot | Row], batch: int, again: deque[Picture], stop: Event) -> Iterator[_Piece | Row]:
    """The windows of each slot in order, after those of the pictures that are to be made again, so that few wait."""
    for entry in entries:
        while again and not stop.is_set():
            yield from _windows(again.popleft(), batch, stop)
        if isinstance(entry, Row):
            yield entry
        else:
            yield from _windows(Picture(entry), batch, stop)
    while again and not stop.is_set():
        yield from _windows(again.popleft(), batch, stop)


def _windows(picture: Picture, batch: int, stop: Event) -> Iterator[_Piece]:
    """The windows of a picture in order. The remaining windows of an abandoned picture are left out."""
    for number in range(picture.slot.count):
        if picture.slot.count - number > batch and stop.is_set():
            break
        yield _Piece(picture, number)


def _batches(pieces: Iterator[_Piece | Row], batch: int) -> Iterator[list[_Piece | Row]]:
    """Group pieces so that each group has at most `batch` windows; the rows of failures are added to the groups."""
    group: list[_Piece | Row] = []
    windows = 0
    for piece in pieces:
        group.append(piece)
        windows += isinstance(piece, _Piece)
        if windows == batch or len(group) >= 4 * batch:
            yield group
            group, windows = [], 0
    if group:
        yield group


def _finished(group: list[_Piece | Row], runner: _BatchRunner, writers: ThreadPoolExecutor) -> list[Row | Future[Row]]:
    """Run the windows of a group, and return the rows of failures and of the pictures that are now complete."""
    finished: list[Row | Future[Row]] = [piece for piece in group if isinstance(piece, Row)]
    for made in runner.run([piece for piece in group if isinstance(piece, _Piece)]):
        finished.append(writers.submit(made.finish) if isinstance(made, Picture) else made)
    return finished


class _BatchRunner:
    """Runs windows through the sampler, always with the same batch size.

    Attributes:
        again: the pictures that the gate wants to be made again.
    """

    def __init__(self, stages: Stages[Job], batch: int) -> None:
        self._generator = stages.generator
        self._make_fallback = stages.fallback
        self._fallback: Generator | None = None
        self._tell = stages.tell
        self._gate = stages.gate
        self._batch = batch
        self._since = time.monotonic()
        self.again: deque[Picture] = deque()

    def run(self, pieces: Sequence[_Piece]) -> list[Picture | Row]:
        """Regenerate windows. Returns the pictures that are now complete, in order, or rows of those that failed."""
        if not pieces:
            return []
        began = time.monotonic()
        pixels, finite = self._generate(self._generator, pieces)
        bad = [index for index, good in enumerate(finite) if not good]
        if bad and self._make_fallback is not None:
            self._fallback = self._fallback or self._make_fallback()
            again, finite_again = self._generate(self._fallback, [pieces[index] for index in bad])
            for place, index in enumerate(bad):
                pixels[index], finite[index] = again[place], finite_again[place]
        ended = time.monotonic()
        if self._tell is not None:
            self._tell(len(pieces), ended - began, ended - self._since)
        self._since = ended
        for piece, made, good in zip(pieces, pixels, finite, strict=True):
            piece.picture.add(made, bool(good))
        return self._judged([piece.picture for piece in pieces if piece.number == piece.picture.slot.count - 1])

    def _judged(self, complete: Sequence[Picture]) -> list[Picture | Row]:
        """What becomes of complete pictures; those that are to be made again are left out."""
        if self._gate is None:
            return [picture if picture.finite else self._failed(picture) for picture in complete]
        decided, again = self._gate.judge([picture for picture in complete if picture.finite])
        self.again += again
        return [*(self._failed(picture) for picture in complete if not picture.finite), *decided]

    def _failed(self, picture: Picture) -> Row:
        """The row of a picture with a window whose values were not finite, even when repeated."""
        error = "the engine gave values that are not finite" + (", also in fp32" if self._make_fallback else "")
        return replace(picture.slot.row, status=Status.FAILED, error=error)

    def _generate(self, generator: Generator, pieces: Sequence[_Piece]) -> tuple[Pixels, NDArray[np.bool_]]:
        import torch

        size, rest = generator.image_size, self._batch - len(pieces)
        squares = np.zeros((self._batch, size, size, 3), np.uint8)
        for index, piece in enumerate(pieces):
            squares[index] = piece.picture.cut(piece.number)
        seeds = [piece.seed for piece in pieces] + [0] * rest
        whole = (float(size), float(size))
        own = [piece.picture.slot.own or whole for piece in pieces] + [whole] * rest
        pixels, finite = generator.generate(torch.from_numpy(squares), seeds, own)
        return np.array(pixels[: len(pieces)]), np.array(finite[: len(pieces)])
