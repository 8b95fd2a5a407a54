"""Facts about this machine and its installed packages, found without importing a library."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from diffclean import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "timm",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
)


def package_version(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """The versions of the libraries that diffclean uses; None for those that are not installed."""
    return {name: package_version(name) for name in PACKAGES}


def versions_line() -> str:
    """One line with all versions, for a bug report."""
    installed = (f"{name} {version}" for name, version in package_versions().items() if version is not None)
    return ", ".join(
        [f"diffclean {__version__}", f"Python {platform.python_version()}", platform.platform(), *installed]
    )


def issue_tracker() -> str:
    """Where to report a bug, from the metadata of the package if it names a tracker."""
    try:
        urls = metadata.metadata("diffclean").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        urls = []
    named = {label.strip().lower(): url.strip() for label, _, url in (text.partition(",") for text in urls)}
    url = named.get("issues") or named.get("repository")
    return f"at {url}" if url else "in the project's issue tracker"


def cache_dir() -> Path:
    """The folder for engines and downloads: DIFFCLEAN_CACHE, or the XDG cache folder."""
    if own := os.environ.get("DIFFCLEAN_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffclean"


def prebuilt_dir() -> Path | None:
    """The folder of prebuilt engines (DIFFCLEAN_PREBUILT), with `engines` as in the cache. It is never written to."""
    own = os.environ.get("DIFFCLEAN_PREBUILT")
    return Path(own).expanduser() if own else None


def disk_free_bytes(folder: Path) -> int:
    """The free space on the disk where `folder` is, or would be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def usable_cores() -> float:
    """The cores that this process may use: its affinity, limited by the CPU quota of the container."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota:  # cgroup v1
        quota, period = _text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), _text("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, int(quota) / int(period))
    return cores


def memory_bytes() -> dict[str, int | None]:
    """Total and available memory, both limited by the container."""
    lines = (line.partition(":") for line in _text("/proc/meminfo").splitlines())
    info = {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if rest.split()}
    total, available = info.get("MemTotal"), info.get("MemAvailable")
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        limit, used = _text(limit_file), _text(used_file)
        if limit.isdigit() and total is not None and int(limit) < total:
            total = int(limit)
            if used.isdigit() and available is not None:
                available = min(available, max(0, total - int(used)))
    return {"total": total, "available": available}


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        name: the name that it reports.
        architecture: the instruction set, such as x86_64.
        cores: the number of cores.
        cores_usable: the number of cores that this process may use.
        instructions: which of the instructions it has that make engines fast.
    """

    name: str
    architecture: str
    cores: int | None
    cores_usable: float
    instructions: list[str]


def cpu() -> Cpu:
    """The processor: its name, the usable cores, and the instructions that make engines fast."""
    fields: dict[str, str] = {}
    for line in _text("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())  # all cores are assumed to be like the first
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "bf16")
    return Cpu(
        name=fields.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=os.cpu_count(),
        cores_usable=usable_cores(),
        instructions=[flag for flag in wanted if flag in flags],
    )


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU that this process may use.

    Attributes:
        name: the name that the driver reports.
        capability: the compute capability, (9, 0) for Hopper.
        memory_bytes: its total memory.
        driver_cuda: the newest CUDA version that its driver supports.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    driver_cuda: str

    @property
    def capability_text(self) -> str:
        """The compute capability as NVIDIA writes it, such as 9.0."""
        return f"{self.capability[0]}.{self.capability[1]}"


def gpus() -> list[Gpu]:
    """The GPUs that CUDA shows to this process, which CUDA_VISIBLE_DEVICES may limit."""
    return _ask_driver()[0]


def why_no_gpu() -> str:
    """Why `gpus` is empty; "" if it is not."""
    return _ask_driver()[1]


@cache
def _ask_driver() -> tuple[list[Gpu], str]:
    # Every runtime needs the library of the driver; nvidia-smi may be missing in a container.
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return [], "there is no NVIDIA driver (libcuda.so.1)"
    if code := driver.cuInit(0):
        return [], f"the NVIDIA driver does not start (cuInit says {code})"
    count, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    found = [_gpu(driver, ordinal, cuda) for ordinal in range(count.value)]
    return found, "" if found else "the driver shows none (check CUDA_VISIBLE_DEVICES)"


def _gpu(driver: ctypes.CDLL, ordinal: int, cuda: str) -> Gpu:
    device, value, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, 256, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(name.value.decode(errors="replace"), (capability[0], capability[1]), memory.value, cuda)


@dataclass(frozen=True)
class Cache:
    """The folder for engines and downloads.

    Attributes:
        folder: its path.
        free_bytes: the free space there.
    """

    folder: str
    free_bytes: int


@dataclass(frozen=True)
class Machine:
    """This machine, and what is installed on it.

    Attributes:
        diffclean: the version of diffclean.
        python: the version of Python.
        executable: the Python that runs.
        os: the operating system.
        cpu: the processor.
        memory_bytes: `total` and `available`.
        gpus: the GPUs that CUDA shows to this process.
        why_no_gpu: why there are none; empty if there are.
        shared_memory_bytes: the size of /dev/shm; None if there is none.
        cache: the folder for engines and downloads.
        packages: the version by library; None if it is not installed.
    """

    diffclean: str
    python: str
    executable: str
    os: str
    cpu: Cpu
    memory_bytes: dict[str, int | None]
    gpus: list[Gpu]
    why_no_gpu: str
    shared_memory_bytes: int | None
    cache: Cache
    packages: dict[str, str | None]


def machine() -> Machine:
    """All of these facts, for `doctor`."""
    folder = cache_dir()
    return Machine(
        diffclean=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        os=platform.platform(),
        cpu=cpu(),
        memory_bytes=memory_bytes(),
        gpus=gpus(),
        why_no_gpu=why_no_gpu(),
        shared_memory_bytes=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,
        cache=Cache(str(folder), disk_free_bytes(folder)),
        packages=package_versions(),
    )
