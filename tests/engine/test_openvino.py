"""OpenVINO in a process that also has signals and threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SIGNALLED = """
import faulthandler, signal, sys, threading
faulthandler.enable()  # makes a stack for signal handlers, as pytest and many services do
from pathlib import Path
from diffclean.runtime.choose import open_engine
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
engines = [open_engine(Path(sys.argv[1]), "openvino", "fp32", threads=1)]
dropping = threading.Thread(target=engines.clear)
dropping.start()
dropping.join()
signal.raise_signal(signal.SIGUSR1)
sys.exit(0 if heard else 3)
"""


def test_a_signal_finds_its_handler_after_another_thread_has_dropped_an_engine(tiny_engine: Path) -> None:
    """An OpenVINO core that another thread destroys takes the first thread's stack for signal handlers with it."""
    ended = subprocess.run([sys.executable, "-c", SIGNALLED, str(tiny_engine)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
