"""Read ahead of the sampler, in order, with a bound on what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition, Event
from typing import TypeVar

from diffclean.data.manifest import Row
from diffclean.variation.picture import Slot

Job = TypeVar("Job")


def ahead(
    readers: ThreadPoolExecutor,
    prepare: Callable[[Job], Sequence[Slot | Row]],
    jobs: Iterable[Job],
    most: int,
    stop: Event,
) -> Generator[Slot | Row, None, None]:
    """Results of `prepare` in order; ends early when `stop` is set.

    At most `most` jobs are read ahead, and no more than `most` windows wait. A picture with more windows than that
    waits by itself, beside one in the hand of each reader.

    Close the iterator when it is not read to its end: readers may be waiting for room.
    """
    room = _Room(most)

    def read(number: int, job: Job) -> Sequence[Slot | Row]:
        found = prepare(job)
        room.take(number, _windows(found))
        return found

    waiting: deque[Future[Sequence[Slot | Row]]] = deque()
    source = enumerate(jobs)
    try:
        while not stop.is_set():
            for number, job in source:
                waiting.append(readers.submit(read, number, job))
                if len(waiting) >= most:
                    break
            if not waiting:
                return
            found = waiting.popleft().result()
            room.give(_windows(found))
            yield from found
    finally:
        room.close()
        for future in waiting:
            future.cancel()


def _windows(found: Sequence[Slot | Row]) -> int:
    return sum(slot.count for slot in found if isinstance(slot, Slot))


class _Room:
    """Room for so many windows. Whoever is first in line always finds some, so that nobody waits for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._first = 0
        self._closed = False
        self._changed = Condition()

    def take(self, number: int, windows: int) -> None:
        """Wait until there is room for job `number`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number == self._first or self._held + windows <= self._most)
            self._held += windows

    def give(self, windows: int) -> None:
        """The first in line was taken out."""
        with self._changed:
            self._first += 1
            self._held -= windows
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
