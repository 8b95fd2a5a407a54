"""Kill `clean` at random moments of all its steps: it must come to the same outcome as a job that was left alone.

    python benchmarks/kill_clean.py --data FOLDER --test FOLDER --kills 20

One job runs undisturbed. A second one is killed by SIGKILL again and again, and the same command is typed again until
it ends. The kills go through all steps in order: each waits until its step has begun, and then for a random part of the
time that the step took in the undisturbed job. Compared are the list of suspects, the weights of the student, the
variations, the list of the cleaned data set, and the measurements. What the kills cost is the work that was redone: the
seconds of all runs together less those of the undisturbed run and of the starts.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_result

from diffclean.classifiers import checkpoints

CLEAN = [sys.executable, "-m", "diffclean.cli.main", "clean"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a suspect training set")
    parser.add_argument("--test", type=Path, required=True, help="a clean test set")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--detector", default="isolate")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        alone, killed = Path(work) / "alone", Path(work) / "killed"
        words = [str(options.data), "--test", str(options.test), "--epochs", str(options.epochs), "--yes"]
        words += ["--detector", options.detector, "--no-self-test", "--quiet"]
        began = time.monotonic()
        subprocess.run([*CLEAN, *words, "-o", str(alone)], check=True)
        seconds = time.monotonic() - began
        figures: dict[str, Any] = {"seed": options.seed, "epochs": options.epochs, "undisturbed_seconds": seconds}
        figures["kills"], figures["killed_seconds"] = killed_often(words, killed, outcomes(alone), options)
        figures["same"] = {name: of(alone) == of(killed) for name, of in OUTCOMES.items()}
        figures["leftover_temporaries"] = sorted(p.relative_to(killed).as_posix() for p in killed.rglob("*.part"))
    print(json.dumps(figures, indent=2))
    write_result("kill_clean", figures, str(options.data.name))
    sys.exit(not (all(figures["same"].values()) and not figures["leftover_temporaries"]))


def killed_often(
    words: list[str], out: Path, undisturbed: dict[str, Any], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], float]:
    """Kill the job `options.kills` times, then let it end.

    Returns:
        For each kill, the step and the seconds since it had begun; and the seconds of all runs together.
    """
    chance = random.Random(options.seed)
    kills: list[dict[str, Any]] = []
    began = time.monotonic()
    for number in range(options.kills):
        outcome, step = list(undisturbed.items())[number * len(undisturbed) // options.kills]
        pause = chance.uniform(0, step["seconds"])
        before = written(out)
        with subprocess.Popen([*CLEAN, *words, "-o", str(out)], stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not (written(out) > before and outcome in outcomes(out)):
                time.sleep(0.05)
            time.sleep(pause)
            running = process.poll() is None
            process.kill()
        if running:
            kills.append({"step": step["step"], "outcome": outcome, "after_s": round(pause, 2)})
    subprocess.run([*CLEAN, *words, "-o", str(out)], check=True)
    return kills, time.monotonic() - began


def written(out: Path) -> int:
    """When the job's record was last written, in nanoseconds."""
    state = out / "state.json"
    return state.stat().st_mtime_ns if state.exists() else 0


def outcomes(out: Path) -> dict[str, Any]:
    """What the job's record says of each outcome that was begun."""
    state = out / "state.json"
    return dict(json.loads(state.read_text())["outcomes"]) if state.exists() else {}


def suspects(out: Path) -> list[list[str]]:
    """The rows of the list."""
    with (out / "suspects.csv").open(newline="") as file:
        return sorted(csv.reader(file))


def student(out: Path) -> dict[str, list[Any]]:
    """The weights."""
    return {name: value.tolist() for name, value in checkpoints.load(out / "student.pt").model.state_dict().items()}


def variations(out: Path) -> dict[str, str]:
    """The hash of every image that was made."""
    pictures = (out / "work").rglob("*.png")
    return {p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures}


def cleaned(out: Path) -> str:
    """The list of the images that were kept."""
    return (out / "cleaned.csv").read_text()


def measurements(out: Path) -> Any:
    """The figures of the classifiers and variations; they name the files, which lie in another folder in each job."""
    return json.loads((out / "work" / "evaluation.json").read_text().replace(str(out), ""))


OUTCOMES = {
    "suspects": suspects,
    "student": student,
    "variations": variations,
    "cleaned": cleaned,
    "measurements": measurements,
}


if __name__ == "__main__":
    main()
