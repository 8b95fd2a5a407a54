"""The streaming pipeline: reading, sampling and writing overlap, and memory is bounded however long the source.

Three stages run at once. A pool reads and decodes ahead, in order, at most two batches deep. The calling thread fills
batches of fixed size and runs the sampler. A second pool encodes and writes, and one committer journals each batch, in
order, after its files are on disk. A stage that falls behind holds up the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffclean.data.manifest import Row, Status

if TYPE_CHECKING:
    from torch import Tensor

Job = TypeVar("Job")
Pixels = NDArray[np.uint8]


class Generator(Protocol):
    """What the pipeline needs of a sampler."""

    image_size: int

    def generate(
        self, pixels: Tensor, seeds: Sequence[int], own: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8, seeds and own pixels -> (B, S, S, 3) uint8 and (B,) bool finite."""


@dataclass(frozen=True)
class Slot:
    """One place in a batch: the pixels that go in, and the row that will be written about them.

    `finish` encodes and writes the pixels that came out, and returns the finished row. `own` is how many pixels of its
    own the source has across the square, down and across (`Placement.own`); None: as many as the square.
    """

    row: Row
    square: Pixels
    finish: Callable[[Pixels], Row]
    own: tuple[float, float] | None = None


@dataclass(frozen=True)
class Stages(Generic[Job]):
    """What to do with each job.

    Attributes:
        prepare: job -> slots to regenerate, or finished rows of what failed; called from several threads.
        generator: the sampler.
        fallback: makes the sampler that is asked again about images that were not finite; None: there is no other.
        commit: records finished rows; called in order, from one thread.
    """

    prepare: Callable[[Job], Sequence[Slot | Row]]
    generator: Generator
    fallback: Callable[[], Generator] | None
    commit: Callable[[Sequence[Row]], None]


def stream(jobs: Iterable[Job], stages: Stages[Job], batch: int, workers: int, stop: Event | None = None) -> None:
    """Run all jobs through the stages.

    Args:
        jobs: in the order in which they are to be done.
        stages: see `Stages`.
        batch: images the engine takes at once; the last batch is padded to it.
        workers: threads of each pool.
        stop: when set, what was prepared for the batch in flight is finished and recorded, then `stream` returns.

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
            for entries in _batches(_ahead(readers, stages.prepare, jobs, 2 * batch, stop), batch):
                finishing = [
                    writers.submit(slot.finish, pixels) if pixels is not None else slot.row
                    for slot, pixels in runner.run([entry for entry in entries if isinstance(entry, Slot)])
                ]
                finished: list[Row | Future[Row]] = [entry for entry in entries if isinstance(entry, Row)]
                commits.append(committer.submit(_commit, stages.commit, finished + finishing))
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
    """Threads that do without torch's own: there are enough of them, and the sampler wants the cores."""
    import torch

    whole = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, name, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            yield executor
    finally:
        torch.set_num_threads(whole)  # what a thread sets is also what threads begin with that come after it


def _commit(commit: Callable[[Sequence[Row]], None], rows: Sequence[Row | Future[Row]]) -> None:
    commit([row.result() if isinstance(row, Future) else row for row in rows])


def _ahead(
    readers: ThreadPoolExecutor,
    prepare: Callable[[Job], Sequence[Slot | Row]],
    jobs: Iterable[Job],
    depth: int,
    stop: Event,
) -> Iterator[Slot | Row]:
    """Results of `prepare` in order, at most `depth` jobs ahead; ends early when `stop` is set."""
    waiting: deque[Future[Sequence[Slot | Row]]] = deque()
    source = iter(jobs)
    while not stop.is_set():
        for job in source:
            waiting.append(readers.submit(prepare, job))
            if len(waiting) >= depth:
                break
        if not waiting:
            return
        yield from waiting.popleft().result()
    for future in waiting:
        future.cancel()


def _batches(entries: Iterator[Slot | Row], batch: int) -> Iterator[list[Slot | Row]]:
    """Group entries so that each group has at most `batch` slots; rows of failures ride along."""
    group: list[Slot | Row] = []
    slots = 0
    for entry in entries:
        group.append(entry)
        slots += isinstance(entry, Slot)
        if slots == batch or len(group) >= 4 * batch:
            yield group
            group, slots = [], 0
    if group:
        yield group


class _BatchRunner:
    """Runs slots through the sampler, always at the same batch size."""

    def __init__(self, stages: Stages[Job], batch: int) -> None:
        self._generator = stages.generator
        self._make_fallback = stages.fallback
        self._fallback: Generator | None = None
        self._batch = batch

    def run(self, slots: Sequence[Slot]) -> list[tuple[Slot, Pixels | None]]:
        """Each slot with its pixels; with None, and a failed row, where they were not finite even at the second try."""
        if not slots:
            return []
        pixels, finite = self._generate(self._generator, slots)
        bad = [index for index, good in enumerate(finite) if not good]
        if bad and self._make_fallback is not None:
            self._fallback = self._fallback or self._make_fallback()
            again, finite_again = self._generate(self._fallback, [slots[index] for index in bad])
            for place, index in enumerate(bad):
                pixels[index], finite[index] = again[place], finite_again[place]
        return [
            (slot, pixels[index]) if finite[index] else (self._failed(slot), None) for index, slot in enumerate(slots)
        ]

    def _generate(self, generator: Generator, slots: Sequence[Slot]) -> tuple[Pixels, NDArray[np.bool_]]:
        import torch

        size = generator.image_size
        squares = np.zeros((self._batch, size, size, 3), np.uint8)
        for index, slot in enumerate(slots):
            squares[index] = slot.square
        seeds = [slot.row.seed for slot in slots] + [0] * (self._batch - len(slots))
        whole = (float(size), float(size))
        own = [slot.own or whole for slot in slots] + [whole] * (self._batch - len(slots))
        pixels, finite = generator.generate(torch.from_numpy(squares), seeds, own)
        return np.array(pixels[: len(slots)]), np.array(finite[: len(slots)])

    def _failed(self, slot: Slot) -> Slot:
        error = "the engine gave values that are not finite" + (", in fp32 too" if self._make_fallback else "")
        return replace(slot, row=replace(slot.row, status=Status.FAILED, error=error))
