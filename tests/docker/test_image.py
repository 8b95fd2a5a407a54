"""The image under a real Docker engine: `make docker-test`."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from docker_image import Docker

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LEAN_BYTES = 2.5e9
WAIT_S = 120
STRANGER = "4343:4343"
HARD = (
    *("--read-only", "--tmpfs", "/tmp", "--network", "none"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
"""As docs/operating.md says it: nothing can be written but the workspace, the cache and /tmp."""


def variations(out: Path) -> list[Path]:
    return sorted(out.rglob("*_v00.png"))


def keys(out: Path) -> list[str]:
    """The key of every row that is done."""
    table = parquet.read_table(out / "manifest.parquet", columns=["key", "status"]).to_pylist()
    return sorted(row["key"] for row in table if row["status"] == "ok")


def originals(workspace: Path) -> list[str]:
    return sorted(path.relative_to(workspace / "data").as_posix() for path in (workspace / "data").rglob("*.jpg"))


def commands(page: str) -> list[str]:
    """The `docker run` lines of a page's code blocks, but those that need a GPU, a network or several machines."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    elsewhere = ("--gpus", "/mnt/share", "sd-image-variations", "./engine", ":next")
    found = re.findall(r"^    (docker run .*)$", text, re.MULTILINE)
    return [line for line in found if not any(word in line for word in elsewhere)]


def typed(docker: Docker, line: str, workspace: Path) -> subprocess.CompletedProcess[str]:
    """What a page says, typed in the folder; with the client and the image that are tested."""
    script = re.sub(r"^docker run ", f"{docker.client} run --rm ", line).replace(" diffclean ", f" {docker.image} ", 1)
    done = subprocess.run(["sh", "-c", script], cwd=workspace, capture_output=True, text=True, check=False)
    print(f"$ {line}   (exit code {done.returncode})\n{done.stdout}{done.stderr}")
    return done


def test_the_readmes_commands(docker: Docker, workspace: Path, give_to: Callable[[Path, int], None]) -> None:
    """Word for word, on relative paths; all that comes out belongs to the caller, who is the image's own user here."""
    give_to(workspace, 1000)
    small = ("--epochs", "1", "--batch-size", "4", "--arch", "resnet8-cifar")
    assert docker.run(workspace, "train", "./data", "-o", "t.pt", *small).returncode == 0
    clean, variate, distill = commands("README.md")
    assert clean == 'docker run -v "$PWD:/workspace" diffclean clean ./data'
    assert variate == 'docker run -v "$PWD:/workspace" diffclean variate ./data'
    assert distill == 'docker run -v "$PWD:/workspace" diffclean distill --teacher t.pt'
    assert typed(docker, variate, workspace).returncode == 0
    assert keys(workspace / "data-variations") == originals(workspace)
    assert len(variations(workspace / "data-variations")) == len(originals(workspace))
    assert typed(docker, distill, workspace).returncode == 0
    assert typed(docker, clean, workspace).returncode == 3, "four images a class are too few to train on"
    assert (workspace / "data-clean/report.html").is_file()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in workspace.rglob("*")} == {(1000, 1000)}
    done = docker.run(workspace, "evaluate", "t-student.pt", "./data", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)


def test_the_operators_commands(docker: Docker, workspace: Path, give_to: Callable[[Path, int], None]) -> None:
    lines = [line for line in commands("docs/operating.md") if "distill" not in line and "clean ./data" not in line]
    assert len(lines) >= 3
    for line in lines:
        give_to(workspace, 0 if "--user" in line else 1000)
        assert typed(docker, line, workspace).returncode == 0, line


def test_the_callers_own_files(docker: Docker, workspace: Path) -> None:
    """With --user, by whatever number: it need not be in the image's list of users."""
    assert docker.run(workspace, "variate", "./data").returncode == 0
    out = workspace / "data-variations"
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (out, *out.rglob("*"))}
    assert owners == {(workspace.stat().st_uid, workspace.stat().st_gid)}


def test_the_embedded_engine_is_there_before_the_first_run(docker: Docker, workspace: Path) -> None:
    done = docker.run(workspace, "variate", "./data", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["made"] == len(originals(workspace))
    assert "Exporting" not in done.stderr
    assert "is not used" not in done.stderr


def test_progress_is_plain_lines(docker: Docker, workspace: Path) -> None:
    done = docker.run(workspace, "variate", "./data")
    assert re.search(r"^variate: \d+/\d+ images, .* in all", done.stderr, re.MULTILINE)
    assert "\r" not in done.stderr + done.stdout
    assert "\x1b" not in done.stderr + done.stdout


def test_shards_and_an_engine_that_was_carried_here(docker: Docker, workspace: Path) -> None:
    """Each machine makes its part without a network; `merge` joins them."""
    offline = ("--network", "none")
    assert docker.run(workspace, "export", "micro", "-o", "engine", options=offline).returncode == 0
    for shard in ("1/2", "2/2"):
        verb = ("variate", "./data", "--engine", "./engine", "--shard", shard)
        assert docker.run(workspace, *verb, options=offline).returncode == 0
    assert docker.run(workspace, "merge", "data-variations", options=offline).returncode == 0
    assert keys(workspace / "data-variations") == originals(workspace)


def test_doctor(docker: Docker, workspace: Path) -> None:
    done = docker.run(workspace, "doctor", "--json")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["auto_runtime"] == "openvino"
    assert report["model"]["present"]
    assert report["gpus"] == []
    assert report["why_no_gpu"]
    assert report["cache"]["folder"] == "/cache/diffclean"
    assert report["problems"] == []


def test_nothing_reports_to_anybody(docker: Docker, workspace: Path) -> None:
    """ONNX Runtime would keep an identifier and a queue of events in the cache."""
    (cache := workspace / "cache").mkdir()
    shutil.chown(cache, workspace.stat().st_uid, workspace.stat().st_gid)
    verb = ("variate", "./data", "--runtime", "onnxruntime")
    assert docker.run(workspace, *verb, options=("-v", f"{cache}:/cache")).returncode == 0
    assert {path.name for path in cache.iterdir()} <= {"diffclean"}
    assert {path.name for path in cache.glob("diffclean/*")} <= {"schedules"}


@pytest.mark.parametrize(
    "verb", [("variate", "./data"), ("train", "./data", "-o", "t.pt", "--epochs", "1"), ("clean", "./data")]
)
def test_a_folder_of_somebody_else(docker: Docker, workspace: Path, verb: tuple[str, ...]) -> None:
    """It cannot be written to, and the message says what to type; nothing is done and nothing is left behind."""
    done = docker.run(workspace, *verb, options=("--user", STRANGER))
    owner = f"{workspace.stat().st_uid}:{workspace.stat().st_gid}"
    assert done.returncode == 1
    assert f"runs as user {STRANGER}, but /workspace belongs to {owner}" in done.stderr
    assert f"docker run --user {owner} ..." in done.stderr
    assert "Looking at the data" not in done.stderr
    assert [path.name for path in workspace.iterdir()] == ["data"]


def test_the_images_own_user(docker: Docker, workspace: Path, give_to: Callable[[Path, int], None]) -> None:
    """Word for word, without --user: for user 1000 it works, in root's folder it says what to type."""
    command = ("run", "--rm", "-v", f"{workspace}:/workspace", docker.image, "variate", "./data")
    give_to(workspace, 0)
    refused = docker(*command)
    assert refused.returncode == 1
    assert "docker run --user 0:0 ..." in refused.stderr
    give_to(workspace, 1000)
    assert docker(*command).returncode == 0
    assert {path.stat().st_uid for path in (workspace / "data-variations").rglob("*")} == {1000}


def test_a_forgotten_volume(docker: Docker) -> None:
    done = docker("run", "--rm", docker.image, "variate", "./data")
    assert done.returncode == 1
    assert 'No folder is mounted at /workspace. Mount yours: docker run -v "$PWD:/workspace" ...' in done.stderr


def test_read_only_without_network_and_rights(docker: Docker, workspace: Path) -> None:
    done = docker.run(workspace, "variate", "./data", options=HARD)
    assert done.returncode == 0
    assert keys(workspace / "data-variations") == originals(workspace)


def test_a_cache_that_cannot_be_written_to(docker: Docker, workspace: Path) -> None:
    """The embedded engine needs none."""
    (workspace / "cache").mkdir()
    (workspace / "cache").chmod(0o555)
    done = docker.run(workspace, "variate", "./data", options=("-v", f"{workspace / 'cache'}:/cache:ro"))
    assert done.returncode == 0
    assert list((workspace / "cache").iterdir()) == []


def test_no_network_says_what_to_do_about_a_model_on_a_hub(docker: Docker, workspace: Path) -> None:
    done = docker.run(workspace, "variate", "./data", "--engine", "sd-image-variations", options=("--network", "none"))
    assert done.returncode == 1
    assert "--engine path/to/model" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_resumed(docker: Docker, workspace: Path, how: signal.Signals) -> None:
    """SIGTERM, which `docker stop` sends, ends cleanly with 130; after either the same command goes on."""
    for number in range(400):  # enough for many batches
        shutil.copy(workspace / "data/first/000.jpg", workspace / f"data/first/more-{number:04}.jpg")
    owner = f"{workspace.stat().st_uid}:{workspace.stat().st_gid}"
    verb = ("variate", "./data", "--batch", "8")
    begun = docker("run", "--detach", "--user", owner, "-v", f"{workspace}:/workspace", docker.image, *verb)
    name = begun.stdout.strip()
    try:
        out, deadline = workspace / "data-variations", time.monotonic() + WAIT_S
        while not (out.is_dir() and len(variations(out)) > 40):  # some batches are down in the journal
            assert time.monotonic() < deadline, docker("logs", name).stderr
            time.sleep(0.1)
        docker("kill", "--signal", how.name, name)
        code = int(docker("wait", name).stdout)
        said = docker("logs", name).stderr
    finally:
        docker("rm", "--force", "--volumes", name)
    assert code == {signal.SIGTERM: 130, signal.SIGKILL: 137}[how], said
    assert 0 < len(variations(out)) < len(originals(workspace))
    assert not (out / "manifest.parquet").exists()
    if how == signal.SIGTERM:
        assert "To continue, type the same command again." in said
    done = docker.run(workspace, *verb, "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["kept"] > 0
    assert result["kept"] + result["made"] == len(originals(workspace))
    assert keys(out) == originals(workspace)


def test_the_whole_job_read_only_stopped_and_resumed(docker: Docker, workspace: Path) -> None:
    """For a user whom the image does not know, without network and rights; `docker stop` in the middle of it."""
    for path in list((workspace / "data").rglob("*.jpg")):  # enough to train on, and to be busy with
        for number in range(40):
            shutil.copy(path, path.with_name(f"more-{number:02}-{path.name}"))
    owner = f"{workspace.stat().st_uid}:{workspace.stat().st_gid}"
    small = ("--epochs", "2", "--arch", "resnet8-cifar", "--size", "32", "--detector", "spectral", "--no-self-test")
    verb = ("clean", "./data", *small)
    begun = docker("run", "--detach", "--user", owner, "-v", f"{workspace}:/workspace", *HARD, docker.image, *verb)
    name, out = begun.stdout.strip(), workspace / "data-clean"
    try:
        deadline = time.monotonic() + 2 * WAIT_S
        while not (out / "work/teacher.pt").exists():
            assert time.monotonic() < deadline, docker("logs", name).stderr
            time.sleep(0.1)
        docker("stop", "--time", "60", name)
        code, said = int(docker("wait", name).stdout), docker("logs", name).stderr
    finally:
        docker("rm", "--force", "--volumes", name)
    assert code == 130, said
    assert "Done so far: train the teacher" in said
    assert not (out / "report.html").exists()
    taught = (out / "work/teacher.pt").stat().st_mtime_ns
    done = docker.run(workspace, *verb, "--json", options=HARD)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["kept"] + result["suspects"]["suspects"] == len(originals(workspace))
    assert (out / "work/teacher.pt").stat().st_mtime_ns == taught
    for made in ("report.html", "student.onnx", "suspects.csv", "croissant.json"):
        assert (out / made).is_file(), made
    assert {f"{path.stat().st_uid}:{path.stat().st_gid}" for path in (out, *out.rglob("*"))} == {owner}


def test_changed_weights_are_refused(docker: Docker, workspace: Path) -> None:
    """Weights and engines are checked against their hashes at every start."""
    place = docker.shell("find / -xdev -path '*/_engines/micro/unet/config.json'").strip()
    (workspace / "config.json").write_text(docker.shell(f"cat {place}") + " ")
    changed = ("-v", f"{workspace / 'config.json'}:{place}:ro")
    done = docker.run(workspace, "variate", "./data", options=changed)
    assert done.returncode == 1
    assert "was changed: unet/config.json has sha256" in done.stderr
    assert not (workspace / "data-variations").exists()


def test_what_the_image_says_of_itself(docker: Docker) -> None:
    config = docker.inspect()["Config"]
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["diffclean"]
    assert config["WorkingDir"] == "/workspace"
    assert list(config["Volumes"]) == ["/cache"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (labels["title"], labels["version"], labels["licenses"]) == ("diffclean", project["version"], "Apache-2.0")
    assert labels["description"]
    assert re.fullmatch(r"[0-9a-f]{40}(-changed)?|unknown", labels["revision"])
    said = docker("run", "--rm", docker.image, "--version").stdout
    assert said.strip() == f"diffclean {project['version']}"


def test_no_tools_and_no_package_caches_are_left(docker: Docker) -> None:
    left = docker.shell(
        "find /var/lib/apt/lists /var/cache/apt /root/.cache /cache /tmp /opt/tools /wheels /src -type f 2>/dev/null;"
        "for tool in gcc cc g++ make pip pip3 git curl; do command -v $tool; done; true"
    )
    assert left == ""


def test_the_user_owns_nothing_but_the_cache(docker: Docker) -> None:
    """What runs cannot change what it runs."""
    assert docker.shell("find / -xdev -user 1000 2>/dev/null") == ""
    assert docker.shell("find /opt -xdev -perm /022 ! -type l") == ""
    assert docker.shell("stat -c %a /cache").strip() == "1777"


def test_every_package_is_locked(docker: Docker) -> None:
    """In the image is what the locks name, and nothing else."""
    script = "import importlib.metadata as m; print(*sorted({d.name + '==' + d.version for d in m.distributions()}))"
    done = docker("run", "--rm", "--entrypoint", "python", docker.image, "-c", script)
    installed = {normal(each) for each in done.stdout.split() if not each.startswith("diffclean==")}
    cuda = any(each.startswith("nvidia-cublas==") for each in installed)
    names = ("base", "cpu", "torch" if cuda else "torch-cpu")
    locks = "\n".join((ROOT / f"docker/locks/{name}.txt").read_text() for name in names)
    pinned = {normal(each) for each in re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", locks, re.MULTILINE)}
    assert installed - pinned == set()
    assert {each.partition("==")[0] for each in pinned if not each.startswith("colorama==")} >= {"torch", "openvino"}


def normal(requirement: str) -> str:
    name, _, version = requirement.partition("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def test_it_is_lean(docker: Docker) -> None:
    """Without CUDA's libraries, which come with PyPI's torch and are no part of the CPU image, it keeps to 2.5 GB."""
    script = (
        "cd /opt/diffclean/lib/python3*/site-packages;"
        "du -scb nvidia triton cuda* torch/lib/*cuda* torch/lib/libtorch_nvshmem* 2>/dev/null | tail -1 | cut -f1"
    )
    cuda = int(docker.shell(script) or 0)
    size = docker.inspect()["Size"]
    print(f"The image: {size / 1e9:.2f} GB, of it {cuda / 1e9:.2f} GB of CUDA's.")
    assert size - cuda < LEAN_BYTES
