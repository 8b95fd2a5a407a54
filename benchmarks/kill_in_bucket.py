"""Kill `variate` from tars to tars in a bucket, while requests fail; compare every byte with a run on this machine.

    python benchmarks/kill_in_bucket.py --count 10000 --shards 100 --kills 10

The bucket is that of moto's S3 server, in this process. A proxy before it answers a share of all requests with 503.
Every kill is a SIGKILL after a random number of images. After each one, every tar that is visible must have the bytes
of the run on this machine, and the images in the spool are counted: they are what waits to be packed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from record import write_result

from diffclean.data.encode import encode
from diffclean.data.manifest import Status, read_run_manifest
from diffclean.data.packed_sink import SPOOL

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from bucket_server import ENVIRONMENT, Bucket, bucket_on, s3_server

LEASE_S = 3.0
"""After a kill, the next run waits so long for a sign of life of the one before; 30 s unless it is set."""
DIFFCLEAN = (
    f"import sys; from diffclean.data import lease; lease.LIFE_S = {LEASE_S}; from diffclean.cli.main import main; "
)
DIFFCLEAN += "sys.exit(main())"
SIDE_PX = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--failing", type=float, default=0.05, help="the share of requests that are answered with 503")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--batch", type=int, help="as for variate; an actor or process holds the images of a few")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server would tell every request
    with tempfile.TemporaryDirectory() as name, s3_server() as server, bucket_on(server, "kills") as bucket:
        os.environ.update(ENVIRONMENT | {"AWS_ENDPOINT_URL": bucket.endpoint})
        figures = measured(options, Path(name), bucket)
    write_result("kill_in_bucket", figures, f"{options.count} random images of {SIDE_PX} px in {options.shards} tars")
    sys.exit(not all(figures[name] for name in ("in_manifest_once", "bytes_equal", "only_whole_tars_seen")))


def measured(options: argparse.Namespace, work: Path, bucket: Bucket) -> dict[str, Any]:
    """What a disturbed run in the bucket left, beside an undisturbed one on disk."""
    here, whole = undisturbed(options, work, bucket)
    command = [*in_bucket(options, bucket), "--processes", "1"]
    disturbed = Disturbed(bucket, options)
    kills, seen, runs = [], True, []
    for wanted in disturbed.moments():
        run = Watched(command, work)
        if not run.kill_when(partial(disturbed.has_put, wanted)):
            break
        runs.append(run)
        there = visible(bucket)
        seen = seen and all(whole.get(name) == found for name, found in there.items())
        kills.append({"images_put": disturbed.made, "tars_there": len(there), "images_in_spool": spool(bucket)})
        print(kills[-1], flush=True)
    runs.append(Watched(command, work).finish())
    disturbed.end()
    return {"kills": kills, **outcome(options, bucket, disturbed, whole, seen), **costs(here, runs)}


def undisturbed(options: argparse.Namespace, work: Path, bucket: Bucket) -> tuple[Watched, dict[str, str]]:
    """Put the tars on disk and into the bucket; run over those on disk. Returns the run, and the hash of each tar."""
    (work / "in").mkdir()
    for name, data in tars(options):
        (work / "in" / name).write_bytes(data)
        bucket.store.put(f"in/{name}", data)
    arguments = [str(work / "in" / pattern(options)), "-o", str(work / "out"), *how(options), "--processes", "1"]
    run = Watched(arguments, work).finish()
    return run, {path.name: digest(path.read_bytes()) for path in (work / "out").glob("*.tar")}


def in_bucket(options: argparse.Namespace, bucket: Bucket) -> list[str]:
    """The arguments of the run from tars to tars in the bucket."""
    return [f"{bucket / 'in'}/{pattern(options)}", "-o", bucket / "out", *how(options)]


def how(options: argparse.Namespace) -> list[str]:
    """The options of both runs."""
    batch = ["--batch", str(options.batch)] if options.batch else []
    return ["--engine", options.engine, "--steps", str(options.steps), "--quiet", *batch]


def pattern(options: argparse.Namespace) -> str:
    """The names of the tars."""
    return f"x-{{0000..{options.shards - 1:04d}}}.tar"


def outcome(
    options: argparse.Namespace, bucket: Bucket, disturbed: Disturbed, whole: dict[str, str], seen: bool
) -> dict[str, Any]:
    """What the disturbed run left in the bucket."""
    rows = read_run_manifest(Path(f"{bucket / 'out'}/manifest.parquet"))
    left = [found.name for chunk in bucket.store.below("out") for found in chunk]
    return {
        "images": options.count,
        "tars": options.shards,
        "steps": options.steps,
        "batch": options.batch,
        "seed": options.seed,
        "lease_s": LEASE_S,
        "requests": disturbed.asked,
        "requests_refused": disturbed.refused,
        "puts_of_images": disturbed.made,
        "in_manifest_once": len({row.key for row in rows if row.status is Status.OK}) == options.count == len(rows),
        "bytes_equal": visible(bucket) == whole,
        "only_whole_tars_seen": seen,
        "left_over": [name for name in left if SPOOL in name or ".diffclean-log" in name],
    }


def costs(here: Watched, runs: list[Watched]) -> dict[str, Any]:
    """Time, memory and temporary files of the run on disk and of those in the bucket."""
    return {
        "seconds": {"on_disk_undisturbed": here.seconds, "in_bucket_disturbed": sum(run.seconds for run in runs)},
        "peak_memory_mb": {"on_disk": here.memory_mb, "in_bucket": max(run.memory_mb for run in runs)},
        "peak_temporary_files_mb": max(run.temporary_mb for run in runs),
    }


def tars(options: argparse.Namespace) -> list[tuple[str, bytes]]:
    """Tars of random images with labels."""
    rng, made = np.random.default_rng(options.seed), []
    each = options.count // options.shards
    for shard in range(options.shards):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            for index in range(shard * each, (shard + 1) * each):
                image = encode(rng.integers(0, 255, (SIDE_PX, SIDE_PX, 3), np.uint8))
                for ending, data in (("png", image), ("cls", str(index % 10).encode())):
                    info = tarfile.TarInfo(f"{index:07d}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        made.append((f"x-{shard:04d}.tar", content.getvalue()))
    return made


class Disturbed:
    """Refuses a share of the requests, and counts the images that are put.

    Attributes:
        made: the images that were put into the spool.
        asked: all requests.
        refused: those that were answered with 503.
    """

    def __init__(self, bucket: Bucket, options: argparse.Namespace) -> None:
        self.made = self.asked = self.refused = 0
        self._bucket, self._options, self._chance = bucket, options, random.Random(options.seed)
        bucket.refuse = self._refuse

    def moments(self) -> list[int]:
        """After how many images to kill: spread over the run, at random places."""
        each = self._options.count / (self._options.kills + 1)
        return [round(each * (number + self._chance.uniform(0.6, 1.4))) for number in range(self._options.kills)]

    def has_put(self, count: int) -> bool:
        """Whether so many images were put."""
        return self.made >= count

    def end(self) -> None:
        """Answer everything from now on."""
        self._bucket.refuse = lambda method, path: None

    def _refuse(self, method: str, path: str) -> tuple[int, str] | None:
        self.asked += 1
        self._bucket.requests.clear()  # the proxy would keep all of them
        if self._chance.random() < self._options.failing:
            self.refused += 1
            return 503, "SlowDown"
        self.made += method == "PUT" and path.startswith(f"out/{SPOOL}")
        return None


class Watched:
    """A run of `variate`, or of another verb, in a process of its own.

    Attributes:
        seconds: how long it took.
        memory_mb: its peak resident memory.
        temporary_mb: the most that its temporary files took, looked at a few times a second.
    """

    def __init__(self, arguments: list[str], work: Path, verb: str = "variate") -> None:
        temporary = work / "tmp"
        temporary.mkdir(exist_ok=True)
        self._temporary = str(temporary)
        environment = os.environ | {"TMPDIR": self._temporary}
        self._started = time.monotonic()
        self._process = subprocess.Popen([sys.executable, "-c", DIFFCLEAN, verb, *arguments], env=environment)
        self.seconds = self.memory_mb = self.temporary_mb = 0.0

    def kill_when(self, now: Callable[[], bool]) -> bool:
        """Kill it at a moment; False if it has ended before."""
        if not self.lasts_until(now):
            return False
        self.kill()
        return True

    def lasts_until(self, now: Callable[[], bool]) -> bool:
        """Wait for a moment; False if it has ended before."""
        while not now():
            if self._has_ended():
                return False
        return True

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._wait()

    def finish(self) -> Watched:
        """Let it end well."""
        while not self._has_ended():
            pass
        if self._process.returncode:
            raise SystemExit(f"diffclean ended with {self._process.returncode}")
        return self

    def _has_ended(self) -> bool:
        time.sleep(0.1)
        self.temporary_mb = max(self.temporary_mb, self._temporaries() / 1e6)
        status = Path(f"/proc/{self._process.pid}/status")
        found = [line for line in _text(status).splitlines() if line.startswith("VmHWM")]
        if found:
            self.memory_mb = max(self.memory_mb, int(found[0].split()[1]) / 1000)
        if self._process.poll() is None:
            return False
        self._wait()
        return True

    def _wait(self) -> None:
        self._process.wait()
        self.seconds = time.monotonic() - self._started

    def _temporaries(self) -> int:
        """The size of its open files in TMPDIR, which have no names any more."""
        total = 0
        try:
            for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
                if str(descriptor.readlink()).startswith(self._temporary):
                    total += 512 * descriptor.stat().st_blocks
        except OSError:
            pass
        return total


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def visible(bucket: Bucket) -> dict[str, str]:
    """The hash of every tar in the output."""
    names = [found.name for found in bucket.store.within("out")[1] if found.name.endswith(".tar")]
    return {name.rpartition("/")[2]: digest(bucket.store.get(name)) for name in names}


def spool(bucket: Bucket) -> int:
    """How many images wait to be packed."""
    return sum(len(chunk) for chunk in bucket.store.below(f"out/{SPOOL}"))


def digest(data: bytes) -> str:
    """The sha256."""
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    main()
