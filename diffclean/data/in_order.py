"""Does something with many values in several threads, and gives the results in the order of the values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], values: Iterable[T], threads: int) -> Iterator[R]:
    """Yield `work(value)` for each value.

    At most two results a thread are under way or wait, so memory does not grow with the number of values. With one
    thread, the caller's thread does the work.

    Raises:
        Exception: what `work` raises, in the place of its result.
    """
    if threads == 1:
        yield from map(work, values)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for value in values:
            waiting.append(pool.submit(work, value))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
