"""`variate` on a Ray cluster: only the time differs, and the end of an actor, a node or the driver loses nothing."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemorySink, MemorySource
from runs import At, files
from small_cluster import NODE, actors_of, small_cluster, wait_for_the_end

from diffclean.api.variate import variate as door
from diffclean.data.journal import journal_path, read_journal
from diffclean.data.manifest import read_run_manifest
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, UsageError
from diffclean.execution.ray_cluster import OnRay
from diffclean.variation.estimate import estimate
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate

Draw = Callable[..., Path]
COUNT = 40


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A cluster of two nodes."""
    pytest.importorskip("ray", reason="ray is not installed, or has no wheel for this Python")
    with small_cluster(2) as nodes:
        yield nodes


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "source", [f"{'cat' if i % 2 else 'dog'}/{i:02d}.png" for i in range(COUNT)])


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=2, batch=2, detail=16)


@pytest.fixture
def slow(settings: Settings) -> Settings:
    """So slow that there is time to end something."""
    return replace(settings, steps=100)


def local(source: Path, settings: Settings, out: Path) -> dict[str, bytes]:
    """What one process writes here."""
    return files(variate(source, out, settings, concurrency=Concurrency(threads=1)).out)


def on(nodes: Any, **options: Any) -> Concurrency:
    return Concurrency(None, ray=OnRay(nodes.address, **options))


@pytest.mark.cluster
def test_the_bytes_are_those_of_one_process(nodes: Any, source: Path, settings: Settings, tmp_path: Path) -> None:
    (source / "dog/text.png").write_text("no image")
    settings = replace(settings, variations=2)
    report = variate(source, tmp_path / "out", settings, concurrency=on(nodes))
    assert (report.made, len(report.failed), report.exit_code) == (2 * COUNT, 2, ExitCode.SOME_FAILED)
    assert files(tmp_path / "out") == local(source, settings, tmp_path / "local")
    again = variate(source, tmp_path / "out", settings, concurrency=on(nodes))
    assert (again.made, again.kept) == (0, 2 * COUNT)
    wait_for_the_end(os.getpid())


@pytest.mark.cluster
def test_the_quality_gate_on_a_cluster(nodes: Any, source: Path, settings: Settings, tmp_path: Path) -> None:
    """The same images pass, the same are given up after the same repetitions, and a second run tries none again."""
    probe = replace(settings, batch=COUNT, strength=0.1, min_similarity=0.5)
    found = estimate(source, tmp_path / "none", probe, threads=1).similarities
    gated = replace(probe, batch=2, min_similarity=statistics.median(found))
    here = variate(source, tmp_path / "local", gated, concurrency=Concurrency(threads=1))
    there = variate(source, tmp_path / "out", gated, concurrency=on(nodes))
    assert here.filtered > 0
    assert here.again > 0
    assert (there.made, there.filtered, there.again, there.failed) == (here.made, here.filtered, here.again, [])
    assert there.comparing_s > 0
    assert 0 < there.engine_busy < 1
    assert files(tmp_path / "out") == files(tmp_path / "local")
    made, expected = (read_run_manifest(tmp_path / name / "manifest.parquet") for name in ("out", "local"))
    assert made == expected, "with the same rows that say filtered, and why"
    again = variate(source, tmp_path / "out", gated, concurrency=on(nodes))
    assert (again.made, again.filtered, again.windows) == (0, here.filtered, 0)


@pytest.mark.cluster
@pytest.mark.parametrize("format", ["webdataset", "parquet"])
def test_other_formats(nodes: Any, source: Path, settings: Settings, tmp_path: Path, format: str) -> None:
    variate(source, tmp_path / "out", settings, concurrency=on(nodes), to=format)
    variate(source, tmp_path / "local", settings, concurrency=Concurrency(threads=1), to=format)
    made, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.suffix in (".tar", ".parquet")}
        for name in ("out", "local")
    )
    assert made == expected


@pytest.mark.cluster
def test_an_actor_that_is_killed(
    nodes: Any, source: Path, slow: Settings, tmp_path: Path, caplog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kill = At(3, lambda: os.kill(actors_of(os.getpid())[0], signal.SIGKILL))
    report = variate(source, tmp_path / "out", slow, concurrency=on(nodes), progress=kill)
    assert (report.made, report.failed) == (COUNT, [])
    assert "An actor on" in caplog.text
    assert capsys.readouterr().out == "", "standard output is for results, and Ray prints there"
    assert files(tmp_path / "out") == local(source, slow, tmp_path / "local")


@pytest.mark.cluster
def test_a_node_that_is_killed(nodes: Any, source: Path, slow: Settings, tmp_path: Path, caplog: Any) -> None:
    """Two of three remain."""
    third = nodes.add_node(**NODE)
    kill = At(3, lambda: nodes.remove_node(third, allow_graceful=False))
    report = variate(source, tmp_path / "out", slow, concurrency=on(nodes), progress=kill)
    assert (report.made, report.failed) == (COUNT, [])
    assert files(tmp_path / "out") == local(source, slow, tmp_path / "local")


@pytest.mark.cluster
def test_stopped_and_resumed_here(nodes: Any, source: Path, slow: Settings, tmp_path: Path) -> None:
    """What is in flight is kept; a run can go on with another executor."""
    out, stop = tmp_path / "out", threading.Event()
    with pytest.raises(Interrupted, match=f"of {COUNT} variations are in"):
        variate(source, out, slow, concurrency=on(nodes), stop=stop, progress=At(3, stop.set))
    done = read_journal(journal_path(out))
    assert 3 <= len(done) < COUNT
    assert len(files(out)) == len(done)
    wait_for_the_end(os.getpid())
    variate(source, out, slow, concurrency=Concurrency(threads=1))
    assert files(out) == local(source, slow, tmp_path / "local")


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_driver_is_ended_and_the_same_command_goes_on(
    nodes: Any, source: Path, slow: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    program = "import sys; from diffclean.cli.main import main; sys.exit(main())"
    command = [
        *[sys.executable, "-P", "-c", program, "variate", str(source), "-o", str(out), "--engine", slow.engine],
        *["--runtime", "onnxruntime", "--steps", "100", "--batch", "2", "--detail", "16"],
        *["--executor", "ray", "--ray-address", nodes.address],
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(read_journal(journal_path(out))) >= 3)
        process.send_signal(number)
    assert process.returncode == (ExitCode.INTERRUPTED if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for_the_end(os.getpid())
    assert len(read_journal(journal_path(out))) < COUNT
    assert subprocess.run(command, check=False).returncode == ExitCode.DONE
    assert files(out) == local(source, slow, tmp_path / "local")
    assert [path.name for path in out.rglob("*.part")] == []


def until(done: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.cluster
def test_what_exists_in_this_process_only(nodes: Any, settings: Settings) -> None:
    source = MemorySource({"1": {"cat/a.png": b"no image"}})
    with pytest.raises(DiffcleanError, match="exists in this process only") as caught:
        variate(source, MemorySink(), settings, concurrency=on(nodes))
    assert "`executor` local" in caught.value.hint


def test_arguments_of_a_cluster_without_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`num_gpus`"):
        door(tmp_path, num_gpus=1)
    with pytest.raises(UsageError, match="must be local or ray, not 'dask'"):
        door(tmp_path, executor="dask")
