"""Importing diffclean keeps libraries from reporting to their makers, unless somebody says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

NAMES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
ASK = f"import diffclean, os; print(*(os.environ[name] for name in {NAMES}))"


@pytest.mark.parametrize(("given", "expected"), [({}, "1 1 0"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0 1 0")])
def test_reports_are_off(given: dict[str, str], expected: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    found = subprocess.run([sys.executable, "-c", ASK], env=clean | given, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


@pytest.mark.parametrize(
    "script",
    [
        "from diffclean.engine.openvino import import_openvino; import_openvino()",
        "from diffclean.runtime.probe import probe; probe()",
    ],
)
def test_openvino_keeps_no_identifier(tmp_path: Path, script: str) -> None:
    """What it writes into the home folder when it is about to report; it never does so where `CI` is set."""
    pytest.importorskip("openvino")
    unset = ("CI", "TF_BUILD", "JENKINS_URL")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    subprocess.run([sys.executable, "-c", script], env=clean | {"HOME": str(tmp_path)}, check=True)
    assert not (tmp_path / "intel").exists()


LISTENING = """
import sys
from pathlib import Path
log, arguments = Path(sys.argv[1]), sys.argv[2:]

def hear(event, given):  # also in processes that are forked
    if event in ("socket.connect", "socket.getaddrinfo"):
        log.open("a").write(f"{event} {given}\\n")

sys.addaudithook(hear)
from diffclean.cli.main import main
sys.exit(main(arguments))
"""


def test_variate_asks_nobody(tiny_model: Path, tmp_path: Path) -> None:
    log, data = tmp_path / "log", tmp_path / "data" / "a"
    log.touch()
    data.mkdir(parents=True)
    Image.new("RGB", (16, 16), "red").save(data / "red.png")
    typed = ["variate", str(data.parent), "--engine", str(tiny_model), "--runtime", "openvino", "--threads", "1"]
    unset = ("CI", "TF_BUILD", "JENKINS_URL")
    clean = {name: value for name, value in os.environ.items() if name not in unset}
    home = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", LISTENING, str(log), *typed], env=clean | home, check=True)
    assert log.read_text() == ""


def test_onnx_runtime_keeps_no_identifier(tmp_path: Path) -> None:
    """What it writes when it is about to report: an identifier of the machine and a queue of events."""
    pytest.importorskip("onnxruntime")
    script = "import diffclean, onnxruntime; onnxruntime.get_available_providers()"
    clean = {name: value for name, value in os.environ.items() if not name.endswith("DISABLE_TELEMETRY")}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=clean | home, check=True)
    assert list(tmp_path.iterdir()) == []
