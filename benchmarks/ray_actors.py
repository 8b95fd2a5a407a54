"""Measure `variate` on a Ray cluster on this machine against the local executor, and how much one driver can record.

    python benchmarks/ray_actors.py --photos FOLDER_OF_PHOTOGRAPHS --images 200

local: one process with one engine thread; actors: that many actors of one CPU each, not counting their start. Both go
from files to files. More actors than cores share these. The repeats take turns, and the
median of each is told beside all. Busy is the part of the time in which the engines worked.
driver: actors that make nothing and tell rows at once; what is left is what the driver does: it hands out jobs and
enters rows in a journal.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

from record import write_result
from variate_throughput import gathered

from diffclean.data.journal import Journal, journal_path
from diffclean.data.manifest import Row
from diffclean.execution.base import Share
from diffclean.execution.ray_actors import Ray
from diffclean.execution.ray_cluster import OnRay, connected
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, VariateResult, variate

LONGEST_PX = 500


@dataclass(frozen=True)
class Rows:
    """A task that tells a row for each job, in batches, and makes nothing."""

    batch: int

    def open(self, share: Share) -> Rows:
        """The task is its own station."""
        return self

    def check(self) -> None:
        """Nothing is needed."""

    def rest(self, jobs: Sequence[int], outcomes: Sequence[Row]) -> list[int | None]:
        """The jobs without a row."""
        made = {row.seed for row in outcomes}
        return [None if job in made else job for job in jobs]

    def work(self, jobs: Iterator[int], tell: Callable[[Sequence[Row]], None], stop: Event) -> None:
        """Tell rows of a usual length."""
        while batch := list(islice(jobs, self.batch)):
            tell([self._row(job) for job in batch])

    def _row(self, job: int) -> Row:
        key, digest = f"class-{job % 1000:03d}/image-{job:09d}", f"{job:064x}"
        return Row(
            f"{key}.jpg",
            0,
            f"{key}_v00.png",
            key[:9],
            source_label=key[:9],
            seed=job,
            engine=digest[:16],
            source_sha256=digest,
            output_sha256=digest,
            output_bytes=300_000,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="photographs; they are resized to 500 px")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--detail", type=int, default=64, help="px on the longer side; 64 is one window a picture")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runtime", default="openvino")
    parser.add_argument("--actors", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000, help="how many rows the driver records")
    parser.add_argument("--name", default="ray_actors", help="the name of the result file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        figures = measured(options, Path(work))
    write_result(options.name, figures, f"photographs, longest side {LONGEST_PX} px")


def measured(options: argparse.Namespace, work: Path) -> dict[str, object]:
    """Images per second of each, and rows per second of the driver."""
    import ray
    from ray.cluster_utils import Cluster

    photos = gathered(options.photos, work / "photos", options.images, LONGEST_PX)
    settings = Settings(runtime=options.runtime, steps=options.steps, batch=options.batch, detail=options.detail)
    rates: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}

    def run(name: str, concurrency: Concurrency) -> None:
        result = ran(photos, work / "out", settings, concurrency)
        rates.setdefault(name, []).append(result.images_per_second)
        busy.setdefault(name, []).append(result.engine_busy)

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(max(options.actors) - 1):
            cluster.add_node(**node)
        for _ in range(options.repeats):
            run("local", Concurrency(1, threads=1))
            for actors in options.actors:
                run(f"{actors} actors", Concurrency(actors, ray=OnRay(cluster.address)))
        with connected(OnRay(cluster.address)) as found:
            assert found is not None
            driver = recorded(Ray(found, Share(), options.batch), options.rows, work)
    finally:
        cluster.shutdown()
    return {
        "unit": "images per second",
        "ray": ray.__version__,
        "runtime": options.runtime,
        "steps": options.steps,
        "batch": options.batch,
        "images": options.images,
        "rates": {name: median(each) for name, each in rates.items()},
        "busy": {name: median(each) for name, each in busy.items()},
        "each_rate": rates,
        "each_busy": busy,
        "driver": driver,
    }


def ran(photos: Path, out: Path, settings: Settings, concurrency: Concurrency) -> VariateResult:
    """What a run did, whose output is removed."""
    result = variate(photos, out, settings, concurrency=concurrency)
    shutil.rmtree(out)
    print(f"{concurrency}: {result.images_per_second:.1f} images/s, busy {result.engine_busy:.1%}", flush=True)
    return result


def recorded(executor: Ray, rows: int, work: Path) -> dict[str, float]:
    """How many rows a second the driver records, and how many bytes of the journal each takes."""
    path = journal_path(work)
    started = [0.0]

    def began() -> None:
        started[0] = time.monotonic()

    with Journal.open(path) as journal:
        executor.run(Rows(executor.lot), range(rows), journal.append, began, Event())
        seconds = time.monotonic() - started[0]
    return {"rows": rows, "rows_per_second": rows / seconds, "bytes_per_row": path.stat().st_size / rows}


if __name__ == "__main__":
    main()
