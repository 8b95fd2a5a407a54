"""A child of `processes`: it opens a station, does the jobs that it is handed, and tells what came of them."""

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
    """The whole life of a child."""
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
        logging.basicConfig(handlers=[_Telling(tell)], level=logging.INFO)
        station = order.task.open(order.share)
        tell("ready")
        station.work(_received(jobs), lambda outcomes: tell("outcomes", outcomes), stop)
        tell("done")
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
    except BaseException as error:
        error.add_note("In a child process:\n" + traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(traceback.format_exc())
        with contextlib.suppress(BrokenPipeError):
            tell("error", error)


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone (Linux; elsewhere the pipes tell, a little later)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we could ask
        raise EOFError


def _received(jobs: Connection) -> Iterator[Any]:
    while lot := jobs.recv():
        yield from lot


class _Telling(logging.Handler):
    """Has the parent log it."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("log", (record.name, record.levelno, record.getMessage()))
