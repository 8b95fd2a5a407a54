"""How much memory decoded pictures may take at the same time, over all readers of a process and its siblings."""

from __future__ import annotations

import fcntl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

BYTES = 2**30


class InFlight:
    """Room for decoded pictures; who finds none waits, in order.

    A picture that needs more than all of it is decoded alone.

    Args:
        most: bytes.
    """

    def __init__(self, most: int = BYTES) -> None:
        self.most = most
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()
        self._siblings_lock: int | None = None

    def share(self, processes: int, descriptor: int | None = None) -> None:
        """Have this process take its part of the room only.

        Args:
            processes: among which it is divided.
            descriptor: of a file that all of them have inherited; a picture larger than a part locks it, so that over
                all of them only one such is decoded at a time.
        """
        self.most = max(1, BYTES // processes)
        self._siblings_lock = descriptor

    @property
    def used(self) -> int:
        """Bytes that are taken now."""
        return self._used

    @contextmanager
    def room(self, needed: int) -> Iterator[None]:
        """Wait until there is room for so many bytes, and hold it for the block."""
        taken = min(needed, self.most)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            try:
                # In order, so that small ones do not pass a large one for ever.
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
"""Of this process."""
