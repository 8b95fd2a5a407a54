"""The files that docs/scale.md prints for clusters."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from diffclean.cli.variate import command

PAGE = (Path(__file__).parents[1] / "docs/scale.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


def block(kind: str, containing: str) -> str:
    found = [text for name, text in BLOCKS if name == kind and containing in text]
    assert len(found) == 1
    return found[0]


def test_the_cluster_launcher_takes_its_file() -> None:
    ray = pytest.importorskip("ray", reason="ray is not installed, or has no wheel for this Python")
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load(block("yaml", "cluster_name")), schema)


def test_the_pods_of_the_ray_job_see_the_same_disk() -> None:
    spec = yaml.safe_load(block("yaml", "kind: RayJob"))["spec"]
    cluster = spec["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert [seen(pod) for pod in pods] == [("/shared", "/shared/cache")] * 2
    assert [parts["resources"]["limits"].get("nvidia.com/gpu") for pod in pods for parts in pod["containers"]] == [
        None,
        "1",
    ]
    assert "--num-gpus 1" in spec["entrypoint"]


def test_the_indexed_job_has_as_many_pods_as_shards() -> None:
    job = yaml.safe_load(block("yaml", "kind: Job"))["spec"]
    pod = job["template"]["spec"]
    (line,) = pod["containers"][0]["args"]
    assert seen(pod) == ("/shared", "/shared/cache")
    assert f"--shard $((JOB_COMPLETION_INDEX + 1))/{job['completions']} " in line
    asked = subprocess.run(
        ["sh", "-c", line.replace("diffclean", "echo")],
        env={"JOB_COMPLETION_INDEX": "0", "PATH": "/bin:/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.endswith("--shard 1/16\n")


def seen(pod: dict[str, Any]) -> tuple[str, str]:
    """Where a pod mounts the disk, and where its engines lie."""
    (container,) = pod["containers"]
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"]
    (cache,) = (each["value"] for each in container["env"] if each["name"] == "DIFFCLEAN_CACHE")
    return mount["mountPath"], cache


def test_the_slurm_script_is_one() -> None:
    subprocess.run(["bash", "-n"], input=block("bash", "#SBATCH"), text=True, check=True)


def test_every_option_of_the_page_is_there() -> None:
    lines = re.findall(r"(?:diffclean|diffclean\") variate (?:.*\\\n)*.*", PAGE)
    known = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
    assert len(lines) >= 6
    assert {name for line in lines for name in re.findall(r"(?<= )--[a-z-]+", line)} <= known
