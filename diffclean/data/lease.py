"""The lock of an output in a bucket: an object that its holder writes again and again while it lives.

A bucket has no locks that the death of a process releases. A holder therefore renews its object every few seconds. Who
finds the object of another waits for a while: if it is renewed, the other lives, and this run is refused; if not, the
other has died, and this run takes its place. No clock is compared with another, so a wrong one does no harm.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType

from diffclean.data.bucket_errors import ChangedError, MissingError, StoreError
from diffclean.data.store import Found, Store
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)
LIFE_S = 30.0
"""A holder that has not renewed its object for so long has died. It renews it four times as often."""
_LOOK_S = 0.5


class Lease:
    """A lock in a bucket: `with Lease(store, name): ...`.

    Args:
        store: the bucket.
        name: the object.
        place: what it locks, for messages.
        life_s: see `LIFE_S`.

    Raises:
        DiffcleanError: on entry, if another process holds it.
    """

    def __init__(self, store: Store, name: str, place: str, life_s: float | None = None) -> None:
        self.store, self.name, self.place = store, name, place
        self.life_s = LIFE_S if life_s is None else life_s
        self._token, self._beat = secrets.token_hex(8), 0
        self._mine: Found | None = None
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._renewed = 0.0
        self._lost, self._done = False, threading.Event()
        self._writing = threading.Lock()
        self._keeping = threading.Thread(target=self._keep, daemon=True, name="lease")

    def __enter__(self) -> Lease:
        mine = self.store.create(self.name, self._content())
        while mine is None:
            there = wait_until_free(self.store, self.name, self.place, self.life_s)
            content = self._content()
            mine = self.store.create(self.name, content) if there is None else self.store.replace(there, content)
        if self.store.create(self.name, b"a second writer") is not None:
            raise DiffcleanError(
                f"The store of {self.place} ignores conditions of writing, so two runs could write one output.",
                "Name a folder on this machine as `out`, and copy it to the bucket afterwards.",
            )
        self._mine, self._renewed = mine, time.monotonic()
        self._keeping.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._keeping.join()
        if self._mine is not None and not self._lost:
            with suppress(StoreError):  # it is taken for dead after a while
                self.store.replace(self._mine, b"{}\n")

    def check(self) -> None:
        """Refuse to go on if another process may have taken the lock.

        Raises:
            DiffcleanError: it was lost, or it could not be renewed for too long and still cannot be.
        """
        if time.monotonic() - self._renewed > self.life_s:
            self._renew()  # the store was away for a while; whether the lock is still ours it says itself
        if self._lost:
            raise DiffcleanError(
                f"The lock on {self.place} was taken by another run: this one gave no sign of life for a while.",
                "Let the other run finish. If there is none any more, type the same command again: it resumes.",
            )

    def _content(self) -> bytes:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since}
        return json.dumps(who | {"token": self._token, "beat": self._beat}).encode() + b"\n"

    def _keep(self) -> None:
        while not self._lost and not self._done.wait(self.life_s / 4):
            with suppress(StoreError):  # `check` tries again when this has lasted too long
                self._renew()

    def _renew(self) -> None:
        with self._writing:
            if self._lost or self._mine is None:
                return
            self._beat += 1
            begun = time.monotonic()
            mine = self.store.replace(self._mine, self._content())
            if mine is None:
                self._lost = True
            else:
                self._mine, self._renewed = mine, begun


def wait_until_free(store: Store, name: str, place: str, life_s: float | None = None) -> Found | None:
    """Wait until nobody holds a lease.

    Returns:
        The object that is left; None if there is none.

    Raises:
        DiffcleanError: its holder lives.
    """
    life_s = LIFE_S if life_s is None else life_s
    seen, deadline = "", 0.0
    while True:
        found = store.head(name)
        if found is None:
            return None
        holder = _holder(store, name, found.tag)
        if not holder:
            return found
        if seen and found.tag != seen:
            raise DiffcleanError(
                f"{place} is being written by {holder}.",
                "Wait for it to finish, stop it, or name another output folder: `out`.",
            )
        if not seen:
            seen, deadline = found.tag, time.monotonic() + life_s
            log.warning("%s was last written by %s; waiting up to %.0f s for a sign of life.", place, holder, life_s)
        elif time.monotonic() > deadline:
            log.warning("There was none: that run has died, and this one continues it.")
            return found
        time.sleep(min(_LOOK_S, life_s / 8))


def _holder(store: Store, name: str, tag: str) -> str:
    """Who holds a lease; `""`: it was released."""
    try:
        content = json.loads(store.get(name, None, tag))
        return f"process {int(content['pid'])} on {str(content['host'])[:80]!a}" if content else ""
    except (ChangedError, MissingError):
        return "another diffclean"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "another diffclean"
