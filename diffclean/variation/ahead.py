"""Reads and decodes images ahead of the sampler, in order, with a limit on how much waits."""

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
    """Yield the results of `prepare` in order; end early when `stop` is set.

    At most `most` jobs are read ahead, and at most `most` windows wait. A picture with more windows than that waits
    alone, in addition to one picture in each reading thread.

    Close the iterator if you do not read it to its end, because readers may be waiting for room.
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
    """Limits the number of windows that wait. The first job in line always finds room, so that there is no deadlock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._first = 0
        self._closed = False
        self._changed = Condition()

    def take(self, number: int, windows: int) -> None:
        """Wait until there is room for the windows of job `number`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or number == self._first or self._held + windows <= self._most)
            self._held += windows

    def give(self, windows: int) -> None:
        """Release the room of the first job in line, which has been taken out."""
        with self._changed:
            self._first += 1
            self._held -= windows
            self._changed.notify_all()

    def close(self) -> None:
        """Wake up all waiting threads for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
