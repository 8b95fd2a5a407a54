"""Kill a driver, actors and nodes of `variate` on a Ray cluster over a bucket, while requests fail; compare every byte.

    python benchmarks/kill_on_ray.py --count 1000 --shards 10 --each 2

The cluster has two nodes of one CPU each on this machine, and the bucket is that of `kill_in_bucket.py`: moto's S3
server behind a proxy that answers a share of all requests with 503. An actor and the driver end by SIGKILL. A node is
removed without a word, and another takes its place. After each kill, every tar that is visible must have the bytes of
the run of one process on disk.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from kill_in_bucket import SIDE_PX, Disturbed, Watched, costs, in_bucket, outcome, spool, undisturbed, visible
from record import write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from bucket_server import ENVIRONMENT, Bucket, bucket_on, s3_server
from small_cluster import NODE, actors_of, small_cluster

KINDS = ("actor", "node", "driver")
_ACTOR_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--each", type=int, default=2, help="how many kills of the driver, of an actor and of a node")
    parser.add_argument("--failing", type=float, default=0.05, help="the share of requests that are answered with 503")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="micro")
    parser.add_argument("--batch", type=int, help="as for variate; an actor or process holds the images of a few")
    options = parser.parse_args()
    options.kills = options.each * len(KINDS)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server would tell every request
    with tempfile.TemporaryDirectory() as name, s3_server() as server, bucket_on(server, "kills") as bucket:
        os.environ.update(ENVIRONMENT | {"AWS_ENDPOINT_URL": bucket.endpoint})  # the nodes inherit it
        here, whole = undisturbed(options, Path(name), bucket)
        with small_cluster(2) as cluster:
            figures = measured(options, Path(name), bucket, cluster, here, whole)
    write_result("kill_on_ray", figures, f"{options.count} random images of {SIDE_PX} px in {options.shards} tars")
    times = Counter(figures["kills"])
    done = all(times[kind] == options.each for kind in KINDS)
    sys.exit(not (done and all(figures[name] for name in ("in_manifest_once", "bytes_equal", "only_whole_tars_seen"))))


def measured(
    options: argparse.Namespace, work: Path, bucket: Bucket, cluster: Any, here: Watched, whole: dict[str, str]
) -> dict[str, Any]:
    """What a disturbed run on the cluster left, beside an undisturbed one on disk."""
    import ray

    command = [*in_bucket(options, bucket), "--executor", "ray", "--ray-address", cluster.address]
    disturbed = Disturbed(bucket, options)
    runs, seen = [Watched(command, work)], True
    kills, states = list[str](), list[dict[str, int]]()
    for number, wanted in enumerate(disturbed.moments()):
        if not runs[-1].lasts_until(partial(disturbed.has_put, wanted)):
            break
        kind = KINDS[number % len(KINDS)]
        if kind == "driver":
            runs[-1].kill()
            runs.append(Watched(command, work))
        elif kind == "node":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(**NODE)
        elif not runs[-1].lasts_until(kill_actor(time.monotonic() + _ACTOR_S)):
            break
        there = visible(bucket)
        seen = seen and all(whole.get(name) == found for name, found in there.items())
        state = {"images_put": disturbed.made, "tars_there": len(there), "images_in_spool": spool(bucket)}
        kills.append(kind)
        states.append(state)
        print(kind, state, flush=True)
    runs[-1].finish()
    disturbed.end()
    found = outcome(options, bucket, disturbed, whole, seen)
    return {"ray": ray.__version__, "nodes": 2, "kills": kills, "at_kills": states, **found, **costs(here, runs)}


def kill_actor(deadline: float) -> Any:
    """A function that kills an actor, and says whether there was one; there may be none just now."""

    def kill() -> bool:
        if time.monotonic() > deadline:
            raise SystemExit("There is no actor to kill.")
        found = actors_of(os.getpid())
        if found:
            os.kill(found[0], signal.SIGKILL)
        return bool(found)

    return kill


if __name__ == "__main__":
    main()
