"""Open an engine on the best runtime that really works here, and say which and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.environment import gpus
from diffclean.errors import DiffcleanError, MissingExtraError, UsageError
from diffclean.export.manifest import EngineManifest, damage, read_manifest
from diffclean.families.registry import family_named
from diffclean.runtime.base import Runtime
from diffclean.runtime.probe import DRIVEN

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class Engine:
    """An engine that is open: the family's rules, the manifest, and a runtime that runs the components."""

    def __init__(self, directory: Path, manifest: EngineManifest, runtime: Runtime) -> None:
        self.directory = directory
        self.manifest = manifest
        self.runtime = runtime
        self.family = family_named(manifest.family)

    def call(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run a component (see `Runtime.run`)."""
        return self.runtime.run(component, inputs)

    @property
    def identity(self) -> str:
        """What decides the bytes that come out: fingerprint, runtime and precision."""
        return f"{self.manifest.fingerprint[:16]}/{self.runtime.name}/{self.runtime.precision}"


def open_runtime(
    name: str, directory: Path, manifest: EngineManifest, precision: str | None = None, threads: int | None = None
) -> Runtime:
    """Open one runtime by name.

    Raises:
        UsageError: unknown name, or a precision that the runtime does not have.
        DiffcleanError: it does not work here.
    """
    if name == "openvino":
        from diffclean.runtime.openvino import OpenVino

        return OpenVino(directory, manifest, threads, precision)
    if precision not in (None, "fp32"):
        raise UsageError(f"The runtime {name} computes in fp32 only, not in {precision}.", "Use --runtime openvino.")
    if name == "onnxruntime":
        from diffclean.runtime.onnxruntime import OnnxRuntime

        return OnnxRuntime(directory, manifest, threads)
    if name == "torch":
        from diffclean.runtime.torch import Torch

        return Torch(manifest, threads)
    raise UsageError(f"There is no runtime {name!r}.", f"Known: auto, {', '.join(DRIVEN)}.")


def graph_precision(runtime: str, precision: str | None) -> str:
    """What an engine that is made for a runtime computes in: half precision for a GPU, fp32 for a CPU.

    CPU runtimes that compute in bf16 do so from fp32 graphs by themselves.
    """
    if runtime in ("openvino", "onnxruntime") or not gpus():
        return "fp32"
    return precision or "fp16"


def open_engine(
    directory: Path, runtime: str = "auto", precision: str | None = None, threads: int | None = None
) -> Engine:
    """Open an engine directory after checking its files.

    Args:
        directory: see DESIGN: `engine.json` and a folder a component.
        runtime: one of `DRIVEN`, or "auto" for the first that works.
        precision: "fp32" or "bf16"; None takes the runtime's best.
        threads: of the runtime; None takes all cores.

    Raises:
        DiffcleanError: a file does not match its hash, or no runtime works here.
    """
    manifest = read_manifest(directory)
    if found := damage(directory, manifest.files):
        raise DiffcleanError(f"The engine in {directory} was changed: {'; '.join(found)}.", "Export it again.")
    if runtime != "auto":
        return Engine(directory, manifest, open_runtime(runtime, directory, manifest, precision, threads))
    refused = []
    for name in DRIVEN:
        if precision == "bf16" and name != "openvino":
            continue
        try:
            engine = Engine(directory, manifest, open_runtime(name, directory, manifest, precision, threads))
        except MissingExtraError as error:
            refused.append(f"{name}: {error.message}")
            continue
        except Exception as error:  # installed, but it does not work here: the next one may
            log.warning("Runtime %s fails: %s", name, error)
            refused.append(f"{name} fails: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        log.info("Runtime %s in %s%s.", name, engine.runtime.precision, f" ({'; '.join(refused)})" if refused else "")
        return engine
    raise DiffcleanError("No runtime works here: " + " ".join(refused), "See `diffclean doctor`.")
