"""The streaming pipeline: reading, sampling and writing overlap, and memory is bounded however long the source.

Three stages run at once. A pool reads and decodes ahead, in order, at most two batches deep. The calling thread fills
batches of fixed size with windows, across pictures, and runs the sampler. A second pool encodes and writes, and one
committer journals the pictures that a batch has finished, in order, after their files are on disk. A stage that falls
behind holds up the one before it.
"""

from __future__ import annotations

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
from diffclean.variation.picture import Picture, Slot

if TYPE_CHECKING:
    from torch import Tensor


class Generator(Protocol):
    """What the pipeline needs of a sampler."""

    image_size: int

    def generate(
        self, pixels: Tensor, seeds: Sequence[int], own: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8, seeds and own pixels -> (B, S, S, 3) uint8 and (B,) bool finite."""


@dataclass(frozen=True)
class Stages(Generic[Job]):
    """What to do with each job.

    Attributes:
        prepare: job -> slots to regenerate, or finished rows of what failed; called from several threads.
        generator: the sampler.
        fallback: makes the sampler that is asked again about images that were not finite; None: there is no other.
        commit: records finished rows; called in order, from one thread.
        tell: told after each batch how many windows it held; None: nobody wants to know.
    """

    prepare: Callable[[Job], Sequence[Slot | Row]]
    generator: Generator
    fallback: Callable[[], Generator] | None
    commit: Callable[[Sequence[Row]], None]
    tell: Callable[[int], None] | None = None


def stream(jobs: Iterable[Job], stages: Stages[Job], batch: int, workers: int, stop: Event | None = None) -> None:
    """Run all jobs through the stages.

    Args:
        jobs: in the order in which they are to be done.
        stages: see `Stages`.
        batch: windows that the engine takes at once; the last batch is padded to it.
        workers: threads of each pool.
        stop: when set, what was prepared for the batch in flight is finished and recorded, then `stream` returns. A
            picture that would take more than one batch still is given up.

    Raises:
        Exception: whatever a stage raises (a full disk, say); batches recorded before stay recorded.
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
                for group in _batches(_pieces(entries, batch, stop), batch):
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
    """Threads that do without torch's own: there are enough of them, and the sampler wants the cores.

    They are waited for at the end, but not after an interrupt: a reader may be a minute at one image.
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
        torch.set_num_threads(whole)  # what a thread sets is also what threads begin with that come after it


def _commit(commit: Callable[[Sequence[Row]], None], rows: Sequence[Row | Future[Row]]) -> None:
    commit([row.result() if isinstance(row, Future) else row for row in rows])


@dataclass(frozen=True, slots=True)
class _Piece:
    """One window of a picture."""

    picture: Picture
    number: int

    @property
    def seed(self) -> int:
        return window_seed(self.picture.slot.row.seed, self.number)


def _pieces(entries: Iterator[Slot | Row], batch: int, stop: Event) -> Iterator[_Piece | Row]:
    """The windows of each slot in order; of a picture that is given up, the rest is left out."""
    for entry in entries:
        if isinstance(entry, Row):
            yield entry
            continue
        picture = Picture(entry)
        for number in range(entry.count):
            if entry.count - number > batch and stop.is_set():
                break
            yield _Piece(picture, number)


def _batches(pieces: Iterator[_Piece | Row], batch: int) -> Iterator[list[_Piece | Row]]:
    """Group pieces so that each group has at most `batch` windows; rows of failures ride along."""
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
    """Run a group's windows; the rows of what failed, and of the pictures that are whole now."""
    finished: list[Row | Future[Row]] = [piece for piece in group if isinstance(piece, Row)]
    for picture in runner.run([piece for piece in group if isinstance(piece, _Piece)]):
        finished.append(writers.submit(picture.finish) if picture.finite else runner.failed(picture))
    return finished


class _BatchRunner:
    """Runs windows through the sampler, always at the same batch size."""

    def __init__(self, stages: Stages[Job], batch: int) -> None:
        self._generator = stages.generator
        self._make_fallback = stages.fallback
        self._fallback: Generator | None = None
        self._tell = stages.tell
        self._batch = batch

    def run(self, pieces: Sequence[_Piece]) -> list[Picture]:
        """Regenerate windows; the pictures that are whole now, in order."""
        if not pieces:
            return []
        pixels, finite = self._generate(self._generator, pieces)
        bad = [index for index, good in enumerate(finite) if not good]
        if bad and self._make_fallback is not None:
            self._fallback = self._fallback or self._make_fallback()
            again, finite_again = self._generate(self._fallback, [pieces[index] for index in bad])
            for place, index in enumerate(bad):
                pixels[index], finite[index] = again[place], finite_again[place]
        for piece, made, good in zip(pieces, pixels, finite, strict=True):
            piece.picture.add(made, bool(good))
        if self._tell is not None:
            self._tell(len(pieces))
        return [piece.picture for piece in pieces if piece.number == piece.picture.slot.count - 1]

    def failed(self, picture: Picture) -> Row:
        """The row of a picture with a window whose values were not finite even at the second try."""
        error = "the engine gave values that are not finite" + (", in fp32 too" if self._make_fallback else "")
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
