"""Plain torch: the family's own modules, eager. Slow, and always there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import DiffcleanError
from diffclean.export.manifest import EngineManifest, damage
from diffclean.families.registry import family_named

if TYPE_CHECKING:
    from torch import Tensor


class Torch:
    """Runs the modules that the engine was exported from, in fp32."""

    name = "torch"
    precision = "fp32"

    def __init__(self, manifest: EngineManifest, threads: int | None = None) -> None:
        import torch

        source = Path(manifest.source["path"])
        found = damage(source, manifest.source["files"])
        if found:
            raise DiffcleanError(
                f"The engine's model in {source} is gone or was changed: {'; '.join(found[:3])}.",
                "Use --runtime onnxruntime or openvino, which need the engine directory alone.",
            )
        if threads:
            torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = family_named(manifest.family).load(source)
        self._modules = {name: component.module.to(self.device) for name, component in model.components.items()}
        self._inputs = {name: [port.name for port in entry.inputs] for name, entry in manifest.components.items()}

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        import torch

        with torch.inference_mode():
            outputs = self._modules[component](*(inputs[name] for name in self._inputs[component]))
        return outputs if isinstance(outputs, tuple) else (outputs,)
