"""Write docker/locks/*.txt anew: every package that the images install, pinned, each of its files by hash. `make lock`.

    base.txt       what both images have beside torch and the runtimes, with the extras cloud, plot and tensorboard
    torch.txt      torch, torchvision and CUDA's libraries, from PyPI
    torch-cpu.txt  torch and torchvision without CUDA, from PyTorch's own index
    cpu.txt        the runtimes of the image `cpu`
    cuda.txt       the runtimes of the image `cuda`
    ray.txt        the extra ray, with the dashboard through which KubeRay submits jobs, for images with WITH_RAY=1
    tensorrt.txt   TensorRT, from NVIDIA's own index
    tools.txt      what builds, and is in no image

Versions that are locked already are kept, unless `--upgrade` is given. One resolution covers Python 3.11 and newer. Of
an index that cannot be reached no hashes are known: such a file holds versions alone, and says so in its first lines.

    python docker/lock.py [--upgrade] [--constraint FILE]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = Path(__file__).parent / "locks"
TOOLS = ["hatchling", "cyclonedx-bom"]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NVIDIA_INDEX = "https://pypi.nvidia.com"
TORCH = ("torch", "torchvision")
TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu13-bindings", "tensorrt-cu13-libs")
# Only a build of torch with CUDA asks for these.
WITH_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)")
TIMEOUT_S = 30

Lock = dict[str, str]
"""Name of a package -> its lines in a lock: one a version, where markers tell several apart, with their hashes."""


def main() -> None:
    """Resolve, split, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    parser.add_argument("--constraint", type=Path, help="a file of versions that must not be passed")
    options = parser.parse_args()
    extra = ["--upgrade"] if options.upgrade else []
    extra += ["--constraint", str(options.constraint)] if options.constraint else []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    # One resolution for all: what both images have is then of the same version. ONNX Runtime's two wheels do not mind,
    # since nothing is installed here; `tensorrt` is on NVIDIA's index.
    everywhere = [*project["dependencies"], *extras["cloud"], *extras["plot"], *extras["tensorboard"]]
    with_ray = [re.sub(r"^ray\b", "ray[default]", line) for line in extras["ray"]]
    wanted = [*everywhere, *extras["cpu"], *extras["gpu"], *extras["rtx"], *with_ray]
    every = resolved(
        [line for line in wanted if name_of(line) != "tensorrt"], known("base", "torch", "cpu", "cuda", "ray"), extra
    )
    base = named_by(everywhere, every, extra)
    cpu, cuda = named_by(extras["cpu"], every, extra), named_by([*extras["gpu"], *extras["rtx"]], every, extra)
    ray = named_by(with_ray, every, extra)
    torch = {name for name in every if WITH_TORCH.fullmatch(name)}
    write("base", {name: every[name] for name in base - torch})
    write("torch", {name: every[name] for name in base & torch})
    write("cpu", {name: every[name] for name in cpu - base})
    write("cuda", {name: every[name] for name in cuda - base})
    write("ray", {name: every[name] for name in ray - base})
    write("tools", resolved(TOOLS, known("tools"), extra))
    write_from_index("torch-cpu", CPU_INDEX, {name: version_of(every[name]) for name in TORCH}, local="+cpu")
    write_from_index("tensorrt", NVIDIA_INDEX, tensorrt_versions(options.upgrade))


def resolved(requirements: list[str], before: str, extra: list[str]) -> Lock:
    """All that `requirements` bring along, with hashes.

    Args:
        requirements: as in pyproject.toml.
        before: an earlier lock, whose versions are kept where they still fit.
        extra: further arguments of uv.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.txt", Path(folder) / "out.txt"
        source.write_text("\n".join(requirements))
        target.write_text(before)
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
        command += ["--python-version", "3.11", "--no-header", "--no-annotate", "--no-emit-index-url"]
        subprocess.run([*command, *extra, "--output-file", str(target), str(source)], check=True)
        return split(target.read_text())


def named_by(requirements: list[str], every: Lock, extra: list[str]) -> set[str]:
    """The packages of `every` that `requirements` bring along."""
    wanted = [line for line in requirements if name_of(line) != "tensorrt"]
    return set(resolved(wanted, "\n".join(every.values()), [part for part in extra if part != "--upgrade"])) & set(
        every
    )


def split(text: str) -> Lock:
    """The entries of a lock by name."""
    lock: Lock = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", "\n" + re.sub(r"(?m)^#.*\n?", "", text)):
        if entry.strip():
            name = name_of(entry.strip())
            lock[name] = "\n".join(filter(None, [lock.get(name), entry.strip()]))
    return lock


def name_of(requirement: str) -> str:
    """`Torch_Vision>=0.23` -> `torch-vision`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def version_of(entry: str) -> str:
    """The one version of an entry."""
    (version,) = set(re.findall(r"==([^\s;\\]+)", entry.partition("--hash")[0]))
    return str(version)


def known(*names: str) -> str:
    """What earlier locks hold."""
    return "\n".join((LOCKS / f"{name}.txt").read_text() for name in names if (LOCKS / f"{name}.txt").is_file())


def write(name: str, lock: Lock, note: str = "") -> None:
    """Write one lock, sorted."""
    LOCKS.mkdir(exist_ok=True)
    head = f"# Written by `make lock` (docker/lock.py).\n{note}"
    (LOCKS / f"{name}.txt").write_text(head + "\n".join(lock[key] for key in sorted(lock)) + "\n")
    print(f"{len(lock):4} packages in docker/locks/{name}.txt", file=sys.stderr)


def tensorrt_versions(upgrade: bool) -> dict[str, str]:
    """The versions of TensorRT: those locked, or the newest that PyPI names (its files there are stubs)."""
    locked = split(known("tensorrt"))
    if locked and not upgrade:
        return {name: version_of(locked[name]) for name in TENSORRT}
    entry = resolved(["tensorrt-cu13-bindings"], "", ["--no-deps"])["tensorrt-cu13-bindings"]
    return dict.fromkeys(TENSORRT, version_of(entry))


def write_from_index(name: str, index: str, versions: dict[str, str], local: str = "") -> None:
    """Lock packages of another index, with the hashes that its pages tell; where there are none, without.

    Args:
        name: of the lock.
        index: its address.
        versions: by package.
        local: what its versions end in.
    """
    lock, missing = {}, []
    for package, version in versions.items():
        hashes = hashes_on(index, package, version + local)
        missing += [] if hashes else [package]
        lock[package] = " \\\n".join([f"{package}=={version}{local}", *(f"    --hash=sha256:{one}" for one in hashes)])
    if missing:  # pip checks all of a file or nothing
        lock = {package: entry.partition(" \\")[0] for package, entry in lock.items()}
    note = (
        f"# NO HASHES: {urllib.parse.urlsplit(index).netloc} could not be reached when this was written. "
        "`make lock` where it can be fills them in, and pip then checks them.\n"
    )
    write(name, lock, note if missing else "")


def hashes_on(index: str, package: str, version: str) -> list[str]:
    """The sha256 of each file of a version, as a package's page on an index links them (PEP 503)."""
    try:
        with urllib.request.urlopen(f"{index}/{package}/", timeout=TIMEOUT_S) as answer:
            page = urllib.parse.unquote(answer.read().decode())
    except OSError as error:
        print(f"{index}/{package}/: {error}", file=sys.stderr)
        return []
    stem = re.escape(f"{package.replace('-', '_')}-{version}")
    return sorted(set(re.findall(rf"/{stem}[-.][^\"#]*#sha256=([0-9a-f]{{64}})", page)))


if __name__ == "__main__":
    main()
