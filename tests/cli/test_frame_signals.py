"""Ctrl-C and SIGTERM, in a process of their own."""

import json
import signal
import subprocess
import sys
import threading
from types import ModuleType

import pytest

from diffclean.cli.signals import stopping


def start(tiny: ModuleType, mode: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, tiny.__file__, "tiny", "--mode", mode, *args]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background lets them, and so their children, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    while "ready" not in process.stderr.readline():
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_verb_that_can_finish_its_batch_does(tiny: ModuleType, number: signal.Signals) -> None:
    process = start(tiny, "wait", "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out) == {"stopped": True}
    assert "Stopping after what is in flight" in err
    assert "To continue, type the same command again" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_verb_that_cannot_is_interrupted_at_once(tiny: ModuleType, number: signal.Signals) -> None:
    process = start(tiny, "sleep", "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", ["engine", "pool"])
def test_the_second_signal_ends_what_is_deep_in_a_library(tiny: ModuleType, mode: str, number: signal.Signals) -> None:
    process = start(tiny, mode)
    process.send_signal(number)
    assert process.stderr is not None
    while "once more stops at once" not in process.stderr.readline():  # said at once, also from within an engine
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_second_signal_interrupts() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with stopping(said.append) as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert len(said) == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_there_are_no_handlers_and_no_error() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stopping() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
