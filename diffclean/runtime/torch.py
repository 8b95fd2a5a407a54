"""Plain torch: runs the modules of the family. No compiler is involved, so this works wherever torch does.

On a GPU, the convolutions run channels-last in half precision, and the denoiser, which is called over and over, is
recorded as a CUDA graph for each batch size. With `torch-compile`, the denoiser goes through torch.compile first, which
fuses what lies between convolutions and matrix products. It needs a C compiler.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.hashes import damage
from diffclean.engine.manifest import EngineManifest
from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.registry import family_named, load_model
from diffclean.families.weights import with_safetensors

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")


class Torch:
    """Runs the modules that the engine was exported from.

    Args:
        manifest: the manifest of the engine, which says where the model is.
        precision: fp32, bf16, or on a GPU fp16; None stands for that of the engine on a GPU, and for fp32 on a CPU.
        threads: the number of CPU threads; None stands for all cores.
        compiled: whether the denoiser goes through torch.compile.

    Raises:
        UsageError: the device does not compute in that precision, or the engine stores weights in eight bits.
        DiffcleanError: the model is gone or was changed, or there is no compiler.
    """

    def __init__(
        self,
        manifest: EngineManifest,
        precision: str | None = None,
        threads: int | None = None,
        compiled: bool = False,
    ) -> None:
        import torch

        self.name = "torch-compile" if compiled else "torch"
        if compiled and not any(map(shutil.which, _COMPILERS)):
            raise DiffcleanError(
                "torch.compile needs a C compiler, and there is none on the path.",
                "Install one (on Debian and Ubuntu: apt-get install g++), or use `runtime` torch.",
            )
        if manifest.weights is not None:
            raise UsageError(
                f"This engine stores weights in {manifest.weights}, and the runtime {self.name} would run the model "
                "with its own weights, which gives other images.",
                "Use another runtime, or an engine that was exported without `weights`.",
            )
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision = precision or (manifest.precision if self.device == "cuda" else "fp32")
        known = ("fp32", "bf16") if self.device == "cpu" else ("fp32", "fp16", "bf16")
        if self.precision not in known:
            raise UsageError(
                f"The runtime torch computes on this {self.device.upper()} in {' or '.join(known)}, "
                f"not in {self.precision}."
            )
        if threads:
            torch.set_num_threads(threads)
        if self.device == "cuda" and self.precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
        self._modules = _modules(manifest, self.precision, self.device)
        if compiled:
            self._modules["unet"] = torch.compile(self._modules["unet"], dynamic=False)  # type: ignore[assignment]
        self._inputs = {name: [port.name for port in entry.inputs] for name, entry in manifest.components.items()}
        self._graphs: dict[int, Graph | None] = {}

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import torch

        arguments = tuple(inputs[name] for name in self._inputs[component])
        module = self._modules[component]
        with torch.inference_mode():
            graph = self._graph(module, arguments) if self.device == "cuda" and component == "unet" else None
            return graph(arguments) if graph else called(module, arguments)

    def _graph(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> Graph | None:
        """The recording for this batch size, or None if it cannot be recorded."""
        batch = len(arguments[0])
        if batch not in self._graphs:
            try:
                self._graphs[batch] = Graph(module, arguments)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                log.warning(
                    "The denoiser cannot be recorded as a CUDA graph (%s); it is launched kernel by kernel.", reason
                )
                self._graphs[batch] = None
        return self._graphs[batch]


def _modules(manifest: EngineManifest, precision: str, device: str) -> dict[str, nn.Module]:
    """The components on a device, in a precision, with fp32 inputs and outputs; on a GPU channels-last."""
    import torch

    from diffclean.engine.precision import InPrecision, torch_dtype

    source = Path(manifest.source.get("path", ""))
    if (
        found := damage(source, manifest.source.get("files", {}))
        if manifest.source.get("files")
        else ["it is not named"]
    ):
        raise DiffcleanError(
            f"The engine's model in {source} is gone or was changed: {'; '.join(found[:3])}.",
            "Use `runtime` onnxruntime or openvino, which need only the engine directory.",
        )
    family = family_named(manifest.family)
    model = load_model(family, with_safetensors(source, family.parts), manifest.image_size)
    modules = {}
    for name, component in model.components.items():
        whole = precision == "fp32" or (component.upcast and precision == "fp16")  # it overflows in half precision
        module = component.module if whole else InPrecision(component.module, torch_dtype(precision))
        module = module.to(device)
        modules[name] = module.to(memory_format=torch.channels_last) if device == "cuda" else module
    return modules


def called(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs of a module as a tuple."""
    outputs = module(*arguments)
    return outputs if isinstance(outputs, tuple) else (outputs,)


class Graph:
    """A module that was recorded at one batch size, so that one call launches hundreds of kernels."""

    def __init__(self, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        import torch

        self._inputs = tuple(argument.clone() for argument in arguments)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # before the recording, libraries choose their kernels for these shapes
            for _ in range(3):
                called(module, self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # The restrictions of recording apply to this thread only, so that others can go on decoding and writing images.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = called(module, self._inputs)

    def __call__(self, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Copy the inputs in, replay, and copy the outputs out, so that the next call does not change the result."""
        for buffer, argument in zip(self._inputs, arguments, strict=True):
            if argument.shape != buffer.shape:  # copy_ would broadcast
                raise ValueError(f"{list(argument.shape)} was given, expected {list(buffer.shape)}")
            buffer.copy_(argument)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
