from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz_weights
import pytest

from diffclean.data.journal import Journal, read_journal
from diffclean.data.manifest import Row
from diffclean.data.run_record import RunRecord, differences, open_run, read_run
from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList, read_list
from diffclean.errors import DiffcleanError


def refuse(path: Path) -> object:
    raise DiffcleanError("no")


def wrong(path: Path) -> object:
    raise KeyError("a bug")


def write(path: Path) -> object:
    return (path.parent.parent / "elsewhere").write_text("x")


def connect(path: Path) -> object:
    with socket.socket() as out:
        return out.connect_ex(("127.0.0.1", 9))


def compute(path: Path) -> object:
    while True:
        pass


LOADERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "good": ("", lambda path: path.read_bytes()),
    "refused": ("", refuse),
    "wrong": ("", wrong),
    "crash": ("", lambda path: os.kill(os.getpid(), signal.SIGSEGV)),
    "quiet": ("", lambda path: os._exit(0)),
    "write": ("", write),
    "connect": ("", connect),
    "large": ("", lambda path: len(bytearray(b"x") * 320 * 2**20)),
    "endless": ("", compute),
}


@pytest.fixture
def children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fuzz_weights.Children]:
    monkeypatch.setattr(fuzz_weights, "LOADERS", LOADERS)
    monkeypatch.setattr(fuzz_weights, "KILLED_AFTER_CPU_S", 1)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "seed").write_bytes(b"some bytes")
    made = fuzz_weights.Children(dict.fromkeys(LOADERS, tmp_path / "work" / "seed"), tmp_path / "work")
    yield made
    made.end()


@pytest.mark.parametrize(
    ("kind", "ended"),
    [
        ("refused", "refused"),
        ("wrong", "crashed: KeyError"),
        ("crash", "killed: signal 11"),
        ("quiet", "crashed: no word"),
        ("write", "escaped: open"),
        ("connect", "escaped: socket.connect"),
        ("large", "read"),
        ("endless", f"killed: signal {int(signal.SIGXCPU)}"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_file_is_loaded(
    kind: str, ended: str, children: fuzz_weights.Children
) -> None:
    for each in ("good", kind, "good", kind):
        outcome = children.loaded(each)
        assert outcome["ended"].startswith("read" if each == "good" else ended), outcome
        assert fuzz_weights.bad(outcome) == (each not in ("good", "refused")), outcome


def test_a_file_is_changed_by_the_seed_and_its_number_alone_and_put_back(
    children: fuzz_weights.Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = tmp_path / "work" / "seed"
    seen: list[bytes] = []
    monkeypatch.setattr(children, "loaded", lambda kind: seen.append(seed.read_bytes()) or {})
    for number in (1, 2, 1):
        fuzz_weights.outcome_of("good", number, 0, seed, children)
    assert seen[0] == seen[2] != seen[1]
    assert seed.read_bytes() == b"some bytes"


def test_changed_records_of_a_run_are_read_or_refused(tmp_path: Path) -> None:
    record = RunRecord({"engine": "ab", "steps": 20, "size": {"side": 64}}, {"cat": 0}, {"workers": 2}, "/data")
    open_run(tmp_path, record)
    with Journal.open(tmp_path / "journal.jsonl") as journal:
        journal.append([Row(f"cat/{n}.png", output=f"cat/{n}_v00.png", label="cat", width=8) for n in range(3)])
        journal.forget([("cat/0.png", 0, "why")])
    classes = [JudgedClass("cat", 3, 1, 0.5, 0.3)]
    images = [JudgedImage("cat/0.png", "cat", 0.5, 0.9, True)]
    SuspectList("isolate", "/data", "", classes, images, {}).write(tmp_path / "suspects.json")
    readers: dict[str, Callable[[Path], object]] = {
        "run.json": lambda path: differences(read_run(path.parent), record),
        "journal.jsonl": read_journal,
        "suspects.json": read_list,
    }
    for name, reader in readers.items():
        path = tmp_path / name
        before, refused = path.read_bytes(), 0
        for number in range(300):
            rng = random.Random(f"{name} {number}")
            if name == "journal.jsonl":
                lines = before.splitlines(keepends=True)
                lines[1] = fuzz_weights.mutated_json(lines[1], rng).replace(b"\n", b"") + b"\n"
                path.write_bytes(b"".join(lines))
            else:
                path.write_bytes(fuzz_weights.mutated_json(before, rng))
            try:
                reader(path)
            except DiffcleanError as error:
                refused += 1
                json.dumps(error.message)
        path.write_bytes(before)
        assert 50 < refused < 300, name
