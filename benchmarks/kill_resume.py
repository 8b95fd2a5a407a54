"""Kill `variate` at random moments and resume it: every image must exist once, with the bytes of an undisturbed run.

python benchmarks/kill_resume.py --images FOLDER --count 500 --kills 20
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_result

from diffclean.data.folder import ImageFolder
from diffclean.data.manifest import Status, latest, read_run_manifest
from diffclean.environment import usable_cores

VARIATE = [sys.executable, "-c", "import sys; from diffclean.cli.main import main; sys.exit(main())", "variate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="micro")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work_name:
        work = Path(work_name)
        source = work / "images"
        source.mkdir()
        for item in ImageFolder(options.images).items()[: options.count]:
            shutil.copy(item.path, source / item.key.replace("/", "-"))
        figures: dict[str, Any] = {"images": options.count, "seed": options.seed}
        figures["runs"] = [killed_run(source, count, options) for count in sorted({1, int(usable_cores())})]
    write_result("kill_resume", figures, f"{options.count} CIFAR-10 test images (JPEG-coded copies), 32 px")
    good = (r["in_manifest_once"] and r["bytes_equal"] and not r["leftover_temporaries"] for r in figures["runs"])
    sys.exit(not all(good))


def killed_run(source: Path, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run that nobody disturbs and one that is killed often, both in so many processes."""
    whole, killed = (source.with_name(f"{name}-{processes}") for name in ("undisturbed", "killed"))
    # Small batches: a run makes at least one before it is killed, and there must be some left for the last kill.
    arguments = [str(source), "--engine", options.engine, "--steps", str(options.steps), "--batch", "8", "--quiet"]
    arguments += ["--processes", str(processes)]
    started = time.monotonic()
    subprocess.run([*VARIATE, *arguments, "-o", str(whole)], check=True)
    seconds = time.monotonic() - started
    done = kill_often(arguments, killed, options, seconds)
    rows = read_run_manifest(killed / "manifest.parquet")
    good = {place: row for place, row in latest(rows).items() if row.status is Status.OK}
    figures = {
        "processes": processes,
        "kills": len(done),
        "images_done_at_each_kill": done,
        "in_manifest_once": len(good) == options.count == len(rows),
        "bytes_equal": hashes(whole) == hashes(killed),
        "leftover_temporaries": len(list(killed.rglob("*.part"))),
        "undisturbed_seconds": seconds,
    }
    print(figures, flush=True)
    return figures


def kill_often(arguments: list[str], out: Path, options: argparse.Namespace, seconds: float) -> list[int]:
    """SIGKILL at random moments, counted from when the run can write; then let it finish. Images done at each kill."""
    chance = random.Random(options.seed)
    done = []
    for _ in range(options.kills):
        before = lines(out)
        with subprocess.Popen([*VARIATE, *arguments, "-o", str(out)]) as process:
            # Starting takes most of a short run: wait until the run moves (or ends), then a random while.
            while process.poll() is None and lines(out) == before:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, seconds / options.kills / 4))
            running = process.poll() is None
            process.kill()
        if running:  # a kill that came too late is none
            done.append(lines(out))
    subprocess.run([*VARIATE, *arguments, "-o", str(out)], check=True)
    return done


def lines(out: Path) -> int:
    """Images in the journal."""
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def hashes(out: Path) -> dict[str, str]:
    """Of every image below a folder."""
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.png")}


if __name__ == "__main__":
    main()
