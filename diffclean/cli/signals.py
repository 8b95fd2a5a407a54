"""A clean stop: Ctrl-C and SIGTERM (what `docker stop` and schedulers send) mean the same thing.

A verb that can finish the batch in flight asks for an event and looks at it between batches:

    with stopping() as stop:
        report = variate(..., stop=stop)     # the core gets a plain threading.Event

The first signal sets the event; a second one raises KeyboardInterrupt at once. A verb that does not ask is interrupted
at once by either signal: the frame sees to that with `sigterm_interrupts`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
STOPPING = "Stopping after what is in flight; once more stops at once."


def _say(text: str) -> None:
    # A signal handler may run inside a write to sys.stderr, whose buffer is not re-entrant: write past it.
    try:
        os.write(sys.stderr.fileno(), f"\n{text}\n".encode())
    except (OSError, ValueError, AttributeError):  # stderr is closed or is not a file (tests)
        return


@contextmanager
def _handled(signals: tuple[signal.Signals, ...], handler: Handler) -> Iterator[None]:
    """Install `handler` for the block; outside the main thread Python allows no handlers, and nothing is installed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def only_in_owner(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(number, frame)
        elif number != signal.SIGINT:
            # A forked worker inherits this handler. Ctrl-C reaches the whole process group, and there the parent
            # decides; any other signal was meant for the worker itself.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = {number: signal.signal(number, only_in_owner) for number in signals}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def stopping(say: Callable[[str], None] = _say) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, the second into KeyboardInterrupt.

    Args:
        say: called with one sentence at the first signal.

    Yields:
        The event to look at between batches.
    """
    stop = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say(STOPPING)

    with _handled((signal.SIGINT, signal.SIGTERM), handler):
        yield stop


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,), handler):
        yield
