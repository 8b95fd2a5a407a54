"""A clean stop: Ctrl-C and SIGTERM (what `docker stop` and schedulers send) mean the same thing.

A verb that can finish the batch in flight uses an event and checks it between batches:

    with stopping() as stop:
        report = variate(..., stop=stop)     # the core gets a plain threading.Event

The first signal sets the event; a second one raises KeyboardInterrupt at once. A verb that does not use the event is
interrupted at once by either signal: the frame arranges this with `sigterm_interrupts`.

An interrupt alone may take effect late, because an engine can run for a minute within one call, and a pool of threads
has to finish. Within `ending_at_the_second`, a separate thread therefore listens too, and ends the process `GRACE_S`
after the second signal.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from diffclean.errors import ExitCode

Handler = Callable[[int, FrameType | None], None]
STOPPING = "Stopping after what is in flight; once more stops at once."
GRACE_S = 1.0
"""For a clean end after the second signal, before the process is ended as it is."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_at_first: list[Callable[[], None]] = []
"""What the listening thread does at the first signal: that of the innermost `stopping`."""


def _say(text: str) -> None:
    # A signal handler may run inside a write to sys.stderr, whose buffer is not re-entrant: write past it. And it must
    # not wait for a reader that does not read.
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or is not a file (in tests).
        descriptor = sys.stderr.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, f"\n{text}\n".encode())


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
    stop, first = threading.Event(), threading.Lock()
    heard = 0

    def begin() -> None:
        if first.acquire(blocking=False):  # The handler or the listening thread may be first.
            stop.set()
            say(STOPPING)

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard > 1:
            raise KeyboardInterrupt
        begin()

    _at_first.append(begin)
    try:
        with _handled(_SIGNALS, handler):
            yield stop
    finally:
        _at_first.remove(begin)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,), handler):
        yield


@contextmanager
def ending_at_the_second() -> Iterator[None]:
    """End this process soon after its second SIGINT or SIGTERM, whatever its threads are doing.

    The operating system ends its child processes with it: see `execution.child` and `data.spare`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)  # The thread notices this.


def _listen(heard: int) -> None:
    """Count signals until the other end of the pipe is closed."""
    count = 0
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        while told := pipe.read(1):
            count += told[0] in _SIGNALS
            if count == 1 and _at_first:
                _at_first[-1]()
            if count >= 2:
                clean = select.select([pipe], [], [], GRACE_S)[0] and not pipe.read(1)
                if not clean:
                    _say("Stopped at once.")
                    os._exit(ExitCode.INTERRUPTED)


def leave(code: int) -> None:
    """End the process with `code` if threads are still working: an interrupted run does not wait for them."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in others):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


def _unheard() -> None:
    """Stop a forked process from reporting its own signals to its parent's thread: Ctrl-C reaches the whole group."""
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_unheard)
