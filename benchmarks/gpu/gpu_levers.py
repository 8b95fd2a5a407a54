"""Runs a model's torch modules with each optimisation switched on or off, to measure what each is worth.

The runtime `torch` contains the optimisations that are shipped; this module is for measurements only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffclean.engine.manifest import EngineManifest
from diffclean.engine.precision import InPrecision, torch_dtype
from diffclean.families.registry import family_named
from diffclean.runtime.torch import Graph, called


@dataclass(frozen=True)
class Levers:
    """What is turned on.

    Attributes:
        channels_last: convolutions run with the channels last in memory.
        cuda_graph: the denoiser is recorded, on a GPU.
        compiler: backend of torch.compile, for denoiser and decoder; "": they run as they are.
        cudnn_benchmark: cuDNN tries its kernels on each new shape.
        decoder_in_fp32: the decoder alone.
    """

    channels_last: bool = False
    cuda_graph: bool = False
    compiler: str = ""
    cudnn_benchmark: bool = False
    decoder_in_fp32: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """What is global, while it lasts."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


SHIPPED = Levers(channels_last=True, cuda_graph=True)
"""As the runtime `torch` does it on a GPU."""


class TorchWithLevers:
    """A `Runtime`; see the module.

    Args:
        manifest: it says where the model is.
        precision: fp32, fp16 or bf16.
        levers: see `Levers`.
    """

    name = "torch"

    def __init__(self, manifest: EngineManifest, precision: str, levers: Levers) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.precision, self.levers = precision, levers
        model = family_named(manifest.family).load(Path(manifest.source["path"]), manifest.image_size)
        self._inputs = {name: [port.name for port in each.inputs] for name, each in model.components.items()}
        self._modules = {name: self._ready(name, each.module) for name, each in model.components.items()}
        self._graphs: dict[int, Graph] = {}

    def _ready(self, name: str, module: torch.nn.Module) -> Any:
        in_fp32 = self.precision == "fp32" or (name == "vae_decoder" and self.levers.decoder_in_fp32)
        module = (module if in_fp32 else InPrecision(module, torch_dtype(self.precision))).to(self.device)
        if self.levers.channels_last:
            module = module.to(memory_format=torch.channels_last)
        if self.levers.compiler and name in ("unet", "vae_decoder"):
            return torch.compile(module, backend=self.levers.compiler, dynamic=False)
        return module

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        given = tuple(inputs[name] for name in self._inputs[component])
        module, batch = self._modules[component], len(given[0])
        with torch.inference_mode():
            if not (self.levers.cuda_graph and self.device == "cuda" and component == "unet"):
                return called(module, given)
            if batch not in self._graphs:
                self._graphs[batch] = Graph(module, given)
            return self._graphs[batch](given)
