"""Locks, which ensure that there is only one writer for an output folder or for one shard of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType

from diffclean.data.atomic import open_plain, write_error
from diffclean.errors import DiffcleanError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """A lock on an output folder during a run: `with Lock(out): ...`. A missing folder is created.

    A shard holds its own lock and shares the folder's lock. Shards can therefore run at the same time, but not at the
    same time as a run of the whole data set or a merge. The operating system releases the lock when the process ends,
    so a killed run needs no cleaning up. The hidden lock file itself remains.

    Args:
        out: the output folder.
        name: the name of a shard, or `""` for the whole folder.

    Raises:
        DiffcleanError: on entry, if another process holds the lock (the message names it) or the file system has no
            locks.
    """

    def __init__(self, out: Path, name: str = "") -> None:
        self.out = out
        self.name = name
        self._descriptors: list[int] = []

    def __enter__(self) -> Lock:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._take("", fcntl.LOCK_SH if self.name else fcntl.LOCK_EX)
            if self.name:
                self._take(f"-{self.name}", fcntl.LOCK_EX)
        except OSError as error:
            self._release()
            raise write_error(error, self.out) from error
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def _take(self, suffix: str, mode: int) -> None:
        path = self.out / f".diffclean{suffix}.lock"
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DiffcleanError(
                f"{self.out} is being written by {_holder(descriptor)}.",
                "Wait for it to finish, stop it, or name another output folder: `out`.",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise DiffcleanError(
                f"The disk of {self.out} has no locks ({error.strerror}), so that two runs could spoil each other's "
                "images.",
                "Name an output folder on another disk (`out`), or mount this one with locks.",
            ) from error
        os.ftruncate(descriptor, 0)
        if mode == fcntl.LOCK_EX:
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

    def _release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another diffclean (one or more shards of it)"
