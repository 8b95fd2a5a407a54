"""`make lock`: what it makes of uv's answer and of an index's pages."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docker/lock.py"
RIGHT, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_lock", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOCKS", tmp_path)
    return module


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index with one package, in the versions 2.1+cpu and 2.1.1+cpu."""
    (page := tmp_path / "index/torch/index.html").parent.mkdir(parents=True)
    page.write_text(
        f'<a href="/whl/torch-2.1%2Bcpu-cp311-cp311-linux_x86_64.whl#sha256={RIGHT}">x</a>'
        f'<a href="/whl/torch-2.1.1%2Bcpu-cp311-cp311-linux_x86_64.whl#sha256={OTHER}">y</a>'
    )

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "index")))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_entries_of_one_package_stay_together(lock: ModuleType) -> None:
    text = (
        "# a comment\nnumpy==2.4 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n"
        "numpy==2.5 ; python_full_version >= '3.12' \\\n    --hash=sha256:2\nTorch_Vision==1 \\\n    --hash=sha256:3\n"
    )
    found = lock.split(text)
    assert list(found) == ["numpy", "torch-vision"]
    assert found["numpy"].count("==") == 2
    assert found["torch-vision"] == "Torch_Vision==1 \\\n    --hash=sha256:3"
    assert lock.version_of(found["torch-vision"]) == "1"


def test_hashes_of_an_index(lock: ModuleType, index: str, tmp_path: Path) -> None:
    lock.write_from_index("torch-cpu", index, {"torch": "2.1"}, local="+cpu")
    text = (tmp_path / "torch-cpu.txt").read_text()
    assert f"torch==2.1+cpu \\\n    --hash=sha256:{RIGHT}\n" in text
    assert OTHER not in text
    assert "NO HASHES" not in text


def test_an_index_that_knows_a_part_gives_no_hash_at_all(lock: ModuleType, index: str, tmp_path: Path) -> None:
    """pip checks all of a file or refuses it."""
    lock.write_from_index("torch-cpu", index, {"torch": "2.1", "torchvision": "0.1"}, local="+cpu")
    _, note, *entries = (tmp_path / "torch-cpu.txt").read_text().splitlines()
    assert "NO HASHES" in note
    assert entries == ["torch==2.1+cpu", "torchvision==0.1+cpu"]
