"""Which runtimes really work on this machine, and for each that does not, why and what to type.

Nothing is compiled, but a library is called usable only after it was imported and asked for its devices: an installed
package proves little (stubs, missing drivers, two wheels that overwrite each other).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.environment import gpus, package_version, why_no_gpu
from diffclean.errors import MissingExtraError

ORDER = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "openvino", "onnxruntime", "torch")
"""Every runtime that diffclean looks for, best first."""
DRIVEN = (*ORDER, "torch-compile")
"""Those that `variate` can drive; `--runtime auto` takes the first of `auto_order` that works. torch-compile is never
taken unasked: it compiles anew in every process, for minutes where the network is large."""
NEED_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")

INSTALL_GPU = "make install EXTRA=gpu, or: pip install 'diffclean[gpu]'"
BOTH_WHEELS = "onnxruntime and onnxruntime-gpu are both installed and overwrite each other"
ONE_WHEEL = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install "


@dataclass(frozen=True)
class RuntimeStatus:
    """What one runtime can do here.

    Attributes:
        name: as in `--runtime NAME`.
        usable: whether it works now.
        reason: what it runs on, or why it does not run.
        hint: what to type about it; empty when there is nothing to do.
        version: of the library, "" when it is not installed.
        precision: the fastest one that keeps parity here (fp16, bf16, fp32), "" when not usable.
    """

    name: str
    usable: bool
    reason: str
    hint: str = ""
    version: str = ""
    precision: str = ""


def probe() -> list[RuntimeStatus]:
    """Look at every runtime, best first."""
    return [probe_one(name) for name in auto_order()]


def auto_order() -> tuple[str, ...]:
    """`ORDER`; where torch reaches a GPU it comes before all that runs on the CPU."""
    if not gpus() or not _torch().reason.startswith("CUDA"):
        return ORDER
    return (*NEED_GPU, "torch", *(name for name in ORDER if name not in (*NEED_GPU, "torch")))


def probe_one(name: str) -> RuntimeStatus:
    """Look at one runtime of `ORDER`; imports its library."""
    try:
        return _PROBES[name]()
    except Exception as error:  # whatever a broken installation throws, it is a reason and not a crash
        return RuntimeStatus(name, False, f"it fails: {_first_line(error)}", "Reinstall it, or choose another runtime.")


def both_wheels() -> bool:
    """Whether both ONNX Runtime wheels are installed: they share their files, and the later one wins in part."""
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
        stub = " (only the empty package that stands for it on the registry is)" if version else ""
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
    """The provider that a session for `provider` really gets: ONNX Runtime falls back without an error."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the reason is ours to tell
    session = ort.InferenceSession(model.SerializeToString(), options, providers=[provider])
    return str(session.get_providers()[0])


def _openvino() -> RuntimeStatus:
    version = package_version("openvino") or ""
    if not version:
        return RuntimeStatus("openvino", False, "it is not installed", "pip install openvino")
    core = import_module("openvino").Core()
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
