"""Finds out which runtimes really work on this machine, and for each other one why not and what to type.

Nothing is compiled. A library counts as usable only after it was imported and asked for its devices, because an
installed package proves little: it may be a stub, drivers may be missing, or two wheels may overwrite each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from diffclean.engine.openvino import import_openvino, openvino_core
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.environment import gpus, package_version, why_no_gpu
from diffclean.errors import MissingExtraError

ORDER = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "torch")
"""Every runtime that diffclean looks for, best first."""
DRIVEN = (*ORDER, "torch-compile")
"""The runtimes that `variate` can use. `--runtime auto` takes the first of `auto_order` that works, but never
torch-compile, which compiles again in every process, for minutes if the network is large."""
NEED_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")

INSTALL_GPU = "make install EXTRA=gpu, or: pip install 'diffclean[gpu]'"
BOTH_WHEELS = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other"
ONE_WHEEL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install "


@dataclass(frozen=True)
class RuntimeStatus:
    """What one runtime can do on this machine.

    Attributes:
        name: the name that `--runtime` takes.
        usable: whether it works now.
        reason: what it runs on, or why it does not run.
        hint: what to type to make it work; empty if there is nothing to do.
        version: the version of the library; "" if it is not installed.
        precision: the fastest precision that keeps parity here (fp16, bf16, fp32); "" if it is not usable.
    """

    name: str
    usable: bool
    reason: str
    hint: str = ""
    version: str = ""
    precision: str = ""


def probe() -> list[RuntimeStatus]:
    """Examine every runtime, the best first."""
    return [probe_one(name) for name in auto_order()]


def auto_order() -> tuple[str, ...]:
    """`ORDER`, but with torch before all CPU runtimes if torch reaches a GPU."""
    if not gpus() or not _torch().reason.startswith("CUDA"):
        return ORDER
    return (*NEED_GPU, "torch", *(name for name in ORDER if name not in (*NEED_GPU, "torch")))


def probe_one(name: str) -> RuntimeStatus:
    """Examine one runtime of `ORDER`, for which its library is imported."""
    try:
        return _PROBES[name]()
    except Exception as error:  # any exception of a broken installation is a reason, and must not end the program
        return RuntimeStatus(name, False, f"it fails: {_first_line(error)}", "Reinstall it, or choose another runtime.")


def both_wheels() -> bool:
    """Whether both ONNX Runtime wheels are installed. They share files, which the later one overwrites in part."""
    return package_version("onnxruntime") is not None and package_version("onnxruntime-gpu") is not None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _tensorrt(name: str) -> RuntimeStatus:
    library, version = FLAVOURS[name], package_version(name) or ""
    if not gpus():
        return RuntimeStatus(name, False, f"it needs an NVIDIA GPU: {why_no_gpu()}", version=version)
    card = gpus()[0]
    if not library.supported(card.capability):
        reason = f"it does not support {card.name} (compute capability {card.capability_text})"
        return RuntimeStatus(name, False, reason, version=version)
    try:
        library.load()
    except MissingExtraError as error:
        stub = " (only the empty package of that name from the registry is)" if version else ""
        return RuntimeStatus(name, False, f"it is not installed{stub}", error.hint, version)
    return RuntimeStatus(name, True, card.name, version=version, precision="fp16")


def _onnxruntime_cuda() -> RuntimeStatus:
    name, version = "onnxruntime-cuda", package_version("onnxruntime-gpu") or ""
    if not gpus():
        return RuntimeStatus(name, False, f"it needs an NVIDIA GPU: {why_no_gpu()}", version=version)
    if both_wheels():
        return RuntimeStatus(name, False, BOTH_WHEELS, ONE_WHEEL + "onnxruntime-gpu", version)
    if not version:
        hint = ONE_WHEEL + "onnxruntime-gpu" if package_version("onnxruntime") else INSTALL_GPU
        return RuntimeStatus(name, False, "onnxruntime-gpu is not installed", hint)
    ort = import_module("onnxruntime")
    providers = ort.get_available_providers()
    if "CUDAExecutionProvider" not in providers:
        return RuntimeStatus(name, False, f"this build has {', '.join(providers)} only", INSTALL_GPU, version)
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA libraries that torch's wheels brought along
    used = _first_provider(ort, "CUDAExecutionProvider")
    if used != "CUDAExecutionProvider":
        reason = f"its CUDA provider does not start (a session falls back to {used}): CUDA or cuDNN libraries missing?"
        return RuntimeStatus(name, False, reason, "pip install 'onnxruntime-gpu[cuda,cudnn]'", version)
    return RuntimeStatus(name, True, gpus()[0].name, version=version, precision="fp16")


def _first_provider(ort: ModuleType, provider: str) -> str:
    """The provider that a session for `provider` really gets, since ONNX Runtime falls back without an error."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = ort.SessionOptions()
    options.log_severity_level = 4  # diffclean reports the reason itself
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    return str(session.get_providers()[0])


def _openvino() -> RuntimeStatus:
    version = package_version("openvino") or ""
    if not version:
        return RuntimeStatus("openvino", False, "it is not installed", "pip install openvino")
    import_openvino()  # if it does not load, the reason is told
    core = openvino_core()
    devices = list(core.available_devices)
    if "CPU" not in devices:
        reason = f"it has no CPU device here, only: {', '.join(devices) or 'none'}"
        return RuntimeStatus("openvino", False, reason, version=version)
    name = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"
    return RuntimeStatus("openvino", True, f"{', '.join(devices)}: {name}", version=version, precision=precision)


def _onnxruntime() -> RuntimeStatus:
    version = package_version("onnxruntime") or package_version("onnxruntime-gpu") or ""
    if not version:
        return RuntimeStatus("onnxruntime", False, "it is not installed", "pip install onnxruntime")
    providers = import_module("onnxruntime").get_available_providers()
    if "CPUExecutionProvider" not in providers:
        return RuntimeStatus("onnxruntime", False, f"no CPU provider, only: {', '.join(providers)}", version=version)
    hint = ONE_WHEEL + ("onnxruntime-gpu" if gpus() else "onnxruntime") if both_wheels() else ""
    return RuntimeStatus("onnxruntime", True, "CPUExecutionProvider", hint, version, "fp32")


def _torch() -> RuntimeStatus:
    version = package_version("torch") or ""
    if not version:
        return RuntimeStatus("torch", False, "it is not installed", "pip install torch torchvision")
    torch = import_module("torch")
    if torch.cuda.is_available():
        return RuntimeStatus("torch", True, f"CUDA: {torch.cuda.get_device_name(0)}", version=version, precision="fp16")
    if gpus():
        reason = f"CPU only: torch (CUDA {torch.version.cuda or 'none'}) does not reach {gpus()[0].name}"
        return RuntimeStatus("torch", True, reason, "pip install --upgrade torch torchvision", version, "fp32")
    return RuntimeStatus("torch", True, "CPU", version=version, precision="fp32")


_PROBES: dict[str, Callable[[], RuntimeStatus]] = {
    "tensorrt": lambda: _tensorrt("tensorrt"),
    "tensorrt-rtx": lambda: _tensorrt("tensorrt-rtx"),
    "onnxruntime-cuda": _onnxruntime_cuda,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
    "torch": _torch,
}
