"""`variate` in several processes: nothing but the time differs, and whatever ends one of them loses nothing."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import At, files

from diffclean.data.journal import journal_path, read_journal
from diffclean.data.manifest import Status, read_run_manifest
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError, ExitCode, Interrupted
from diffclean.variation import task
from diffclean.variation.settings import Settings, open_for
from diffclean.variation.variate import Concurrency, variate

Draw = Callable[..., Path]
COUNT = 24
TWO = Concurrency(processes=2, threads=1)


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "source", [f"{'cat' if i % 2 else 'dog'}/{i:02d}.png" for i in range(COUNT)])


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=2, batch=3, detail=16)


@pytest.fixture
def undisturbed(source: Path, settings: Settings, tmp_path: Path) -> Path:
    """Made by one process."""
    return variate(source, tmp_path / "undisturbed", settings, concurrency=Concurrency(threads=1)).out


def children(parent: int) -> list[int]:
    """Process ids of those that `variate` started, as Linux lists them (other tests may have left others)."""
    listed = [path.read_text() for path in Path(f"/proc/{parent}/task").glob("*/children")]
    found = [int(each) for text in listed for each in text.split()]
    return [each for each in found if "execution.child import serve" in arguments_of(each)]


def arguments_of(process: int) -> str:
    """The command line of a process; "" where it has just ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_the_outcome_is_that_of_one_process(
    source: Path, settings: Settings, tmp_path: Path, undisturbed: Path, count: int
) -> None:
    report = variate(source, tmp_path / "out", settings, concurrency=Concurrency(count, threads=1))
    assert (report.made, report.exit_code) == (COUNT, ExitCode.DONE)
    assert files(tmp_path / "out") == files(undisturbed)
    assert children(os.getpid()) == []


@pytest.mark.slow
def test_openvino_too(source: Path, settings: Settings, tmp_path: Path) -> None:
    """Its threads are its own; how many there are must not show."""
    settings = replace(settings, runtime="openvino", variations=2)
    one = variate(source, tmp_path / "one", settings, concurrency=Concurrency(threads=2)).out
    two = variate(source, tmp_path / "two", settings, concurrency=Concurrency(processes=2, threads=2)).out
    assert len(files(one)) == 2 * COUNT + 1
    assert files(one) == files(two)


def test_fewer_images_than_processes(settings: Settings, tmp_path: Path, draw_photos: Draw) -> None:
    source = draw_photos(tmp_path / "one", ["a.png"])
    assert variate(source, tmp_path / "out", settings, concurrency=TWO).made == 1
    assert variate(source, tmp_path / "out", settings, concurrency=TWO).kept == 1


def test_a_shard(source: Path, settings: Settings, tmp_path: Path) -> None:
    shard = Shard.parse("1/2")
    one = variate(source, tmp_path / "one", settings, shard=shard, concurrency=Concurrency(threads=1)).out
    two = variate(source, tmp_path / "two", settings, shard=shard, concurrency=TWO).out
    assert files(one) == files(two)


@pytest.mark.slow
def test_stopped_and_resumed(source: Path, settings: Settings, tmp_path: Path) -> None:
    """What is in flight is kept, and the rest is made by the next run."""
    out, stop = tmp_path / "out", threading.Event()
    slow = replace(settings, steps=100)
    with pytest.raises(Interrupted, match=f"of {COUNT} variations are in"):
        variate(source, out, slow, concurrency=TWO, stop=stop, progress=At(3, stop.set))
    done = read_journal(journal_path(out))
    assert 3 <= len(done) < COUNT
    assert len(files(out)) == len(done)
    variate(source, out, slow, concurrency=TWO)
    whole = variate(source, tmp_path / "whole", slow, concurrency=Concurrency(threads=1)).out
    assert files(out) == files(whole)
    assert children(os.getpid()) == []


def test_stopped_before_it_began(source: Path, settings: Settings, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match=f"0 of {COUNT} variations"):
        variate(source, tmp_path / "out", settings, concurrency=TWO, stop=stop)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux lists them")
def test_a_child_that_is_killed(source: Path, settings: Settings, tmp_path: Path, undisturbed: Path) -> None:
    """As the kernel does where memory runs out."""
    out = tmp_path / "out"
    kill = At(3, lambda: os.kill(children(os.getpid())[0], signal.SIGKILL))
    slow = replace(settings, steps=100)
    with pytest.raises(DiffcleanError, match="killed by SIGKILL") as caught:
        variate(source, out, slow, concurrency=TWO, progress=kill)
    assert "`processes` 1" in caught.value.hint
    assert children(os.getpid()) == []
    variate(source, out, slow, concurrency=TWO)
    assert files(out).keys() == files(undisturbed).keys()
    rows = read_run_manifest(out / "manifest.parquet")
    assert len({row.key for row in rows}) == len(rows) == COUNT


def command_line(source: Path, out: Path, model: Path) -> list[str]:
    """Slow on purpose."""
    program = "import sys; from diffclean.cli.main import main; sys.exit(main())"
    return [
        *[sys.executable, "-P", "-c", program, "variate", str(source), "-o", str(out), "--engine", str(model)],
        *["--runtime", "onnxruntime", "--steps", "100", "--batch", "1", "--processes", "2"],
    ]


def until(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes as Linux lists them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_the_parent_is_that_of_its_children(
    source: Path, tmp_path: Path, tiny_model: Path, tiny_engine: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command_line(source, out, tiny_model), stderr=subprocess.DEVNULL) as process:
        until(lambda: len(read_journal(journal_path(out))) >= 2)
        theirs = children(process.pid)
        assert len(theirs) == 2
        process.send_signal(number)
    assert process.returncode == (ExitCode.INTERRUPTED if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{each}").exists() for each in theirs), 20)
    assert subprocess.run(command_line(source, out, tiny_model), check=False).returncode == ExitCode.DONE
    places = [row.key for row in read_journal(journal_path(out))]
    assert len(places) == len(set(places)) == COUNT
    assert [path.name for path in out.rglob("*.part")] == []


@pytest.mark.slow
def test_modules_beside_the_images_are_not_run(
    source: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile data set may hold a `torch.py`, and the user may stand in its folder."""
    for name in ("torch", "numpy", "pickle", "diffclean", "multiprocessing", "sitecustomize"):
        (source / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w'); raise SystemExit")
    monkeypatch.chdir(source)
    assert variate(source, tmp_path / "out", settings, concurrency=TWO).made == COUNT
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_write_that_fails(source: Path, settings: Settings, tmp_path: Path, undisturbed: Path) -> None:
    out, stop = tmp_path / "out", threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        variate(source, out, settings, concurrency=TWO, stop=stop)
    (out / "dog").write_text("in the way")
    with pytest.raises(DiffcleanError, match=r"Cannot write .*: something that is no folder is in its way"):
        variate(source, out, settings, concurrency=TWO)
    (out / "dog").unlink()
    variate(source, out, settings, concurrency=TWO)
    assert files(out) == files(undisturbed)


@pytest.mark.slow
def test_what_fails_is_listed_and_what_a_child_logs_is_heard(
    source: Path, settings: Settings, tmp_path: Path, nan_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "dog/text.png").write_text("no image")
    report = variate(
        source, tmp_path / "out", replace(settings, engine=str(nan_model), runtime="openvino"), concurrency=TWO
    )
    assert len(report.failed) == COUNT + 1
    assert {row.status for row in read_run_manifest(tmp_path / "out/manifest.parquet")} == {Status.FAILED}
    assert list((tmp_path / "out").rglob("*.png")) == []
    assert "dog/text.png: " in caplog.text
    if "bf16" in report.engine:
        assert ("diffclean.variation.settings", logging.WARNING) in {(r.name, r.levelno) for r in caplog.records}


def test_a_bug_in_a_child_is_a_bug(
    source: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown with the child's traceback."""
    sent_task = task.sent_task

    def broken(*arguments: Any) -> task.SentTask:
        sent = sent_task(*arguments)
        assert sent is not None
        return replace(sent, settings=None)  # type: ignore[arg-type]

    monkeypatch.setattr("diffclean.variation.run.sent_task", broken)
    with pytest.raises(AttributeError) as caught:
        variate(source, tmp_path / "out", settings, concurrency=TWO)
    assert "work.py" in "".join(caught.value.__notes__)


def test_how_many_are_quickest(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for little work; a core each for much, unless there is no memory."""
    opened = open_for(settings)
    monkeypatch.setattr(task, "usable_cores", lambda: 4.0)
    monkeypatch.setattr(task, "memory_bytes", lambda: {"available": 64 * 2**30})
    assert [task.quickest(opened, left) for left in (0, 100, 1_000_000)] == [1, 1, 4]
    assert task.quickest(open_for(settings, 2), 1_000_000) == 2
    monkeypatch.setattr(task, "memory_bytes", lambda: {"available": 2.5 * 2**30})
    assert task.quickest(opened, 1_000_000) == 2
    monkeypatch.setattr(task, "memory_bytes", lambda: {"available": 2**20})
    assert task.quickest(opened, 1_000_000) == 1
