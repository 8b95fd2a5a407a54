"""A child process of `processes`: it opens a station, does the jobs that it receives, and reports their outcomes."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffclean.execution.processes import Order

_PR_SET_PDEATHSIG = 1


def serve(jobs_descriptor: int, messages_descriptor: int) -> None:
    """Run a child process from its start to its end."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group, and the parent decides
    jobs, messages = Connection(jobs_descriptor, writable=False), Connection(messages_descriptor, readable=False)
    telling = threading.Lock()

    def tell(kind: str, content: object = None) -> None:
        with telling:
            messages.send((kind, content))

    try:
        order: Order = jobs.recv()
        _end_with(order.parent)
        if order.cores:
            os.sched_setaffinity(0, order.cores)
        logging.basicConfig(handlers=[Telling(tell)], level=logging.INFO)
        station = order.task.open(order.share)
        tell("ready")
        station.work(_received(jobs), lambda outcomes: tell("outcomes", outcomes), stop)
        tell("done")
    except (EOFError, BrokenPipeError):  # the parent has ended
        return
    except BaseException as error:
        with contextlib.suppress(BrokenPipeError):
            tell("error", sendable(error))


def sendable(error: BaseException) -> BaseException:
    """An error that is being handled, in a form that another process can read, with its traceback as a note."""
    error.add_note("In another process:\n" + traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(traceback.format_exc())
    return error


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (Linux; elsewhere the closed pipes show it later)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        raise EOFError


def _received(jobs: Connection) -> Iterator[Any]:
    while lot := jobs.recv():
        yield from lot


class Telling(logging.Handler):
    """Sends log records to the process that started the work, which logs them."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._tell("log", (record.name, record.levelno, record.getMessage()))
