"""OpenVINO from several threads at once, as lanes use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

# A process of its own: what is guarded happens once in a process. The interpreter changes threads as often as it can.
SCRIPT = """
import sys, threading
from pathlib import Path
from diffclean.export.manifest import read_manifest
from diffclean.runtime.openvino import OpenVino

place = Path(sys.argv[1])
OpenVino(place, read_manifest(place), "fp32")
import openvino

together = threading.Barrier(4)
sys.setswitchinterval(1e-6)

def first():
    together.wait()
    openvino.Type.f32.to_dtype()

threads = [threading.Thread(target=first, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
sys.exit(any(thread.is_alive() for thread in threads))
"""


def test_lanes_that_begin_at_once_do_not_wait_for_each_other_for_ever(tiny_engine: Path) -> None:
    """OpenVINO converts types under a lock that it fills on first use: without care three runs of four hung here."""
    command = [sys.executable, "-c", SCRIPT, str(tiny_engine)]
    hung = [subprocess.run(command, check=False, timeout=120).returncode for _ in range(3)]
    assert hung == [0, 0, 0]
