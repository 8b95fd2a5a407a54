"""Decodes files that may take too long in a spare process, because a hanging process can be ended and a thread cannot.

Only files whose decoding is not known to be cheap come here (`limits.plain_passes`). A spare process is kept for the
next file. The operating system limits its processor time and memory for each file: a file that hangs or crashes the
decoder, or takes too much memory, ends the spare process, and only that file fails. The process ends with its parent,
however the parent ends and whatever the process is doing. The output of decoders (such as libtiff) on standard error is
logged at the level debug.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from diffclean.data.formats import sniffed  # noqa: F401 - what a spare process needs is imported when it starts
from diffclean.data.in_flight import IN_FLIGHT
from diffclean.data.limits import DecodeError, Limits
from diffclean.data.pictures import opened

log = logging.getLogger(__name__)

_LENGTHS = struct.Struct(">IQ")
_WAIT = 4
"""Of wall clock for each second of processor time that is allowed: the machine may be busy."""
_STARTING_S = 60
_CHATTER_BYTES = 2000
_OPENING_BYTES = 512 * 2**20
"""Of memory, beyond what the picture's size accounts for."""


def decoded(
    data: bytes, kind: str, side: int | None, limits: Limits, held: ExitStack
) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode like `decode.decode_for`, in a spare process. The picture counts as in flight until `held` is closed.

    Raises:
        DecodeError: as in `decode.decode`, or the file took too long or too much memory, or crashed the decoder.
    """
    with _SPARES.one() as child:
        if child is None:  # No process can be started here; a warning said so.
            with opened(data, kind, limits) as picture:
                held.enter_context(IN_FLIGHT.room(picture.bytes))
                return picture.rgb(side), picture.size
        return child.decoded(data, kind, side, limits, held)


class _Spare:
    """A spare process, seen from its parent."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        lives, life = os.pipe()
        # These are file objects, so that they are closed when a forked process drops them.
        self._life = os.fdopen(life, "wb", buffering=0)
        self._chatter = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - goes with the process
        package = str(Path(__file__).parents[2])
        serve = f"serve({theirs.fileno()}, {lives})"
        code = f"import sys; sys.path.append({package!r}); from {__name__} import serve; {serve}"
        try:
            self.process = subprocess.Popen(
                # -P: the working directory may hold hostile files, so no modules are imported from it.
                [sys.executable, "-P", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._chatter,
                pass_fds=(theirs.fileno(), lives),
            )
        except BaseException:
            ours.close()
            self._let_go()
            raise
        finally:
            theirs.close()
            os.close(lives)
        self.socket = ours
        self._started = False

    def decoded(
        self, data: bytes, kind: str, side: int | None, limits: Limits, held: ExitStack
    ) -> tuple[np.ndarray, tuple[int, int]]:
        asked = {"kind": kind, "side": side, "limits": [limits.pixels, limits.side, limits.seconds]}
        waits = limits.seconds * _WAIT
        try:
            self.socket.settimeout(waits + (0 if self._started else _STARTING_S))
            _send(self.socket, asked, data)
            found = self._told()
            self._started = True
            # The size is known now. Waiting for room does not count towards the time limit.
            held.enter_context(IN_FLIGHT.room(found["bytes"]))
            self.socket.settimeout(waits)
            _send(self.socket, {})
            height, width = self._told()["shape"]
            limits.check(width, height)  # A process that decodes hostile bytes is not trusted either.
            pixels = np.empty((height, width, 3), np.uint8)
            _fill(self.socket, pixels.data.cast("B"))
        except TimeoutError:
            self.end()
            raise DecodeError(f"took more than {limits.seconds} s to decode") from None
        except (EOFError, OSError):
            raise DecodeError(self._how_it_ended(limits)) from None
        finally:
            self._log_chatter(kind)
        width, height = found["size"]
        return pixels, (width, height)

    def _told(self) -> dict[str, Any]:
        content, _ = _receive(self.socket)
        if "error" in content:
            raise DecodeError(content["error"])
        return content

    def _log_chatter(self, kind: str) -> None:
        if not self._chatter.closed and (said := os.pread(self._chatter.fileno(), _CHATTER_BYTES, 0)):
            self._chatter.seek(0)  # The child writes to the same place.
            self._chatter.truncate()
            log.debug("The decoder of %s files says:\n%s", kind, said.decode(errors="backslashreplace").strip())

    def _how_it_ended(self, limits: Limits) -> str:
        self.socket.close()
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return f"took more than {limits.seconds} s to decode"
        if code == -signal.SIGKILL:
            return "the process that decoded it was killed (too little memory?)"
        return f"it crashed the decoder ({signal.Signals(-code).name})" if code < 0 else "it ended the decoder"

    @property
    def alive(self) -> bool:
        return self.process.poll() is None and self.socket.fileno() >= 0

    def end(self) -> None:
        """Make sure that the process has ended."""
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self._let_go()

    def _let_go(self) -> None:
        self._life.close()
        self._chatter.close()


class _Spares:
    """The spare processes of this process: at most one per core, each started when it is needed."""

    def __init__(self) -> None:
        self._idle: list[_Spare] = []
        self._changing = threading.Lock()
        self._places = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._refused = False

    def one(self) -> _Lent:
        """Lend a spare process to the block, or None if none can be started."""
        return _Lent(self)

    def take(self) -> _Spare | None:
        self._places.acquire()
        with self._changing:
            while self._idle:
                if (child := self._idle.pop()).alive:
                    return child
        try:
            return _Spare()
        except OSError as error:
            if not self._refused:
                self._refused = True
                log.warning("No process can be started for images that may take long (%s): no time limit.", error)
            return None

    def give(self, child: _Spare | None, good: bool) -> None:
        if child is not None and not (good and child.alive):
            child.end()
        elif child is not None:
            with self._changing:
                self._idle.append(child)
        self._places.release()

    def end(self) -> None:
        with self._changing:
            while self._idle:
                self._idle.pop().end()


class _Lent:
    def __init__(self, spares: _Spares) -> None:
        self._spares = spares

    def __enter__(self) -> _Spare | None:
        self._child = self._spares.take()
        return self._child

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._spares.give(self._child, error is None or isinstance(error, DecodeError))


_SPARES = _Spares()


def _forget() -> None:
    """Forget the spare processes in a forked process, which must not talk to those of its parent."""
    global _SPARES
    _SPARES = _Spares()


os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _SPARES.end())


def serve(descriptor: int, life: int) -> None:
    """Run a spare process from its start to its end.

    Args:
        descriptor: the descriptor of the socket that says what to decode.
        life: the descriptor of a pipe whose other end only the parent holds.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides.
    _limit(resource.RLIMIT_FSIZE, _CHATTER_BYTES)
    with suppress(EOFError, OSError), socket.socket(fileno=descriptor) as parent:
        _end_with(life)
        while True:
            asked, data = _receive(parent)
            try:
                _decode(parent, asked, data)
            except DecodeError as error:
                _send(parent, {"error": error.message})


def _end_with(life: int) -> None:
    """Have the kernel end this process, even inside a decoder, when nobody holds the other end of the pipe any more."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    with suppress(BlockingIOError):  # This error means that the parent is there.
        os.read(life, 1)
        raise EOFError


def _decode(parent: socket.socket, asked: dict[str, Any], data: bytes) -> None:
    limits = Limits(*asked["limits"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + limits.seconds)
    _limit_memory(len(data))
    with opened(data, asked["kind"], limits) as picture:
        _send(parent, {"size": picture.size, "bytes": picture.bytes})
        _receive(parent)
        _limit_memory(2 * picture.bytes)
        pixels = picture.rgb(asked["side"])
    _send(parent, {"shape": pixels.shape[:2]})
    parent.sendall(pixels.data.cast("B"))


def _limit_memory(needed: int) -> None:
    """Limit the memory to the given amount above the current use: a decoder that needs more fails and reports it."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, now + needed + _OPENING_BYTES)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _send(to: socket.socket, content: dict[str, Any], data: bytes = b"") -> None:
    text = json.dumps(content).encode()
    to.sendall(_LENGTHS.pack(len(text), len(data)) + text)
    to.sendall(data)


def _receive(from_: socket.socket) -> tuple[dict[str, Any], bytes]:
    header = bytearray(_LENGTHS.size)
    _fill(from_, memoryview(header))
    of_text, of_data = _LENGTHS.unpack(header)
    content, data = bytearray(of_text), bytearray(of_data)
    _fill(from_, memoryview(content))
    _fill(from_, memoryview(data))
    return json.loads(content), bytes(data)


def _fill(from_: socket.socket, view: memoryview) -> None:
    while view:
        count = from_.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
