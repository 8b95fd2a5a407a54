"""A Ray cluster of several nodes on this machine, and the processes of its actors."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@contextmanager
def small_cluster(nodes: int) -> Iterator[Any]:
    """A cluster with so many nodes of one CPU each. Its processes find the tests' own modules."""
    from ray.cluster_utils import Cluster

    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = ":".join(filter(None, paths))
    try:
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def actors_of(parent: int) -> list[int]:
    """Process ids of the actors on the nodes that a process started."""
    named = (int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if b"ray::Desk" in _read(path))
    return sorted(process for process in named if parent in _ancestors(process))


def wait_for_the_end(parent: int, seconds: float = 120) -> None:
    """Wait until no actor of a process is left: Ray ends them without being waited for."""
    deadline = time.monotonic() + seconds
    while left := actors_of(parent):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _ancestors(process: int) -> Iterator[int]:
    while process > 1:
        status = _read(Path(f"/proc/{process}/stat"))
        process = int(status.rpartition(b")")[2].split()[1]) if status else 0
        yield process


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
