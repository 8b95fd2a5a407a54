"""Limit the memory of decoded images over all readers of a process and its sibling processes."""

from __future__ import annotations

import fcntl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

BYTES = 2**30


class InFlight:
    """Memory for decoded images. A reader that finds too little waits, and waiting readers are served in order.

    An image that needs more than the whole limit is decoded when no other image is.

    Args:
        most: the limit in bytes.
    """

    def __init__(self, most: int = BYTES) -> None:
        self.most = most
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._siblings_lock: int | None = None

    def share(self, processes: int, descriptor: int | None = None) -> None:
        """Reduce the limit of this process to its share.

        Args:
            processes: the number of processes that share the memory.
            descriptor: the descriptor of a file that all of them have inherited. An image larger than a share locks
                this file, so that only one such image is decoded at a time over all processes.
        """
        self.most = max(1, BYTES // processes)
        self._siblings_lock = descriptor

    @property
    def used(self) -> int:
        """The number of bytes in use."""
        return self._used

    @contextmanager
    def room(self, needed: int) -> Iterator[None]:
        """Wait until this many bytes are free, and hold them until the block ends."""
        taken = min(needed, self.most)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                # In order, so that small images cannot delay a large one for ever.
                self._changed.wait_for(lambda: self._waiting[0] is turn and self._used + taken <= self.most)
                self._used += taken
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        alone = self._siblings_lock if needed > self.most else None
        try:
            if alone is not None:
                fcntl.lockf(alone, fcntl.LOCK_EX)
            yield
        finally:
            if alone is not None:
                fcntl.lockf(alone, fcntl.LOCK_UN)
            with self._changed:
                self._used -= taken
                self._changed.notify_all()


IN_FLIGHT = InFlight()
"""The memory limit of this process."""
