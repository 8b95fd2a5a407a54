"""What can be said of the container's files without a Docker engine."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LOCKS = {path.stem: path.read_text() for path in (ROOT / "docker/locks").glob("*.txt")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OTHER_INDEXES = ("torch-cpu", "tensorrt")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock: str) -> dict[str, list[str]]:
    """Package -> its entries in a lock: more than one where markers tell versions apart."""
    found: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", "\n" + re.sub(r"(?m)^#.*\n?", "", LOCKS[lock]))[1:]:
        found.setdefault(normal(re.split(r"[=\s]", entry)[0]), []).append(entry)
    return found


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_every_entry_is_pinned_and_has_hashes_or_the_lock_says_that_there_are_none(lock: str) -> None:
    every = [entry for several in entries(lock).values() for entry in several]
    assert every
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+", entry) for entry in every)
    hashed = [entry for entry in every if re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    if lock in OTHER_INDEXES and "NO HASHES" in LOCKS[lock].splitlines()[1]:
        assert hashed == []
    else:
        assert hashed == every


@pytest.mark.parametrize("lock", sorted(LOCKS))
def test_no_lock_names_where_a_package_comes_from(lock: str) -> None:
    assert not re.search(r"://|--index-url|--extra-index-url|--find-links|@ ", LOCKS[lock])


def test_what_the_project_asks_for_is_locked() -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = {
        ("base", "torch"): [*PROJECT["dependencies"], *extras["cloud"], *extras["plot"], *extras["tensorboard"]],
        ("cpu",): extras["cpu"],
        ("cuda", "tensorrt"): [*extras["gpu"], *extras["rtx"]],
        ("ray",): extras["ray"],
    }
    for locks, requirements in wanted.items():
        locked = {name for lock in locks for name in entries(lock)}
        assert {normal(re.split(r"[^A-Za-z0-9._-]", line)[0]) for line in requirements} <= locked


def test_a_package_is_in_one_lock_of_an_image() -> None:
    for image in (("base", "ray", "torch", "cpu"), ("base", "ray", "torch", "cuda", "tensorrt")):
        names = [name for lock in image for name in entries(lock)]
        assert sorted(names) == sorted(set(names))


def test_both_wheels_of_torch_are_of_one_version() -> None:
    for name, several in entries("torch-cpu").items():
        assert [re.split(r"==|\s", each)[1].removesuffix("+cpu") for each in several] == [
            re.split(r"==|\s", each)[1] for each in entries("torch")[name]
        ]


def test_the_dockerfile_has_the_projects_version() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    assert set(re.findall(r"^ARG VERSION=(\S+)", text, re.MULTILINE)) == {PROJECT["version"]}


def test_the_compose_file_runs_both_jobs_with_a_gpu_and_limits() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert {name: service["command"] for name, service in services.items()} == {
        "variate": ["variate", "./data"],
        "distill": ["distill", "--teacher", "t.pt"],
    }
    for service in services.values():
        resources = service["deploy"]["resources"]
        assert resources["reservations"]["devices"][0]["capabilities"] == ["gpu"]
        assert set(resources["limits"]) == {"cpus", "memory"}
        assert service["shm_size"]
        assert {volume.rpartition(":")[2] for volume in service["volumes"]} == {"/workspace", "/cache"}
