"""Measure the memory, temporary files and requests of `train` on tars in a bucket, whose images do not fit into memory.

    python benchmarks/train_from_bucket.py --count 20000 --shards 20

Both runs may hold almost no decoded image, so both read every image again in each epoch, in a random order: one from
tars on disk, the other from the same tars on moto's S3 server. A tenth of the images shows what grows with their
number.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from kill_in_bucket import SIDE_PX, Watched, digest, pattern, tars
from record import write_result

from diffclean.classifiers.checkpoints import load
from diffclean.data.address import Address
from diffclean.data.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from bucket_server import ENVIRONMENT, make_bucket, s3_server

BUCKET = "train"
ARCH = "resnet8-cifar"
_MEMORY_GIB = "0.0001"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server would tell every request
    with tempfile.TemporaryDirectory() as name, s3_server() as (host, port):
        os.environ.update(ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"})
        make_bucket((host, port), BUCKET)
        figures = measured(options, Path(name))
    data = f"{options.count} random images of {SIDE_PX} px in {options.shards} tars"
    write_result("train_from_bucket", figures, data)


def measured(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """What each run took, and whether both ended with the same weights."""
    (work / "in").mkdir()
    for name, data in tars(options):
        (work / "in" / name).write_bytes(data)
        Store(Address("s3", BUCKET)).put(name, data)
    few = argparse.Namespace(**vars(options) | {"shards": options.shards // 10})
    runs = {
        "on_disk": trained(f"{work / 'in'}/{pattern(options)}", "on_disk", work, options),
        "tenth_in_bucket": trained(f"s3://{BUCKET}/{pattern(few)}", "tenth", work, options),
        "in_bucket": trained(f"s3://{BUCKET}/{pattern(options)}", "in_bucket", work, options),
    }
    return {
        "images": options.count,
        "tars": options.shards,
        "epochs": options.epochs,
        "arch": ARCH,
        "memory_gib": float(_MEMORY_GIB),
        "bytes_of_tars": sum(path.stat().st_size for path in (work / "in").iterdir()),
        "seconds": {name: run.seconds for name, run in runs.items()},
        "peak_memory_mb": {name: run.memory_mb for name, run in runs.items()},
        "temporary_files_mb": {name: run.temporary_mb for name, run in runs.items()},
        "weights_equal": weights_of(work / "on_disk.pt") == weights_of(work / "in_bucket.pt"),
    }


def weights_of(path: Path) -> str:
    """A hash of all weights of a classifier."""
    state = load(path).model.state_dict()
    return digest(b"".join(state[name].numpy().tobytes() for name in sorted(state)))


def trained(data: str, name: str, work: Path, options: argparse.Namespace) -> Watched:
    """A training that may hold almost no image."""
    arguments = [data, "-o", str(work / f"{name}.pt"), "--arch", ARCH, "--epochs", str(options.epochs)]
    arguments += ["--size", "16", "--batch-size", "500", "--memory-gib", _MEMORY_GIB, "--quiet"]
    return Watched(arguments, work, "train").finish()


if __name__ == "__main__":
    main()
