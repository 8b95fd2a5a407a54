"""Opens an engine on the best runtime that really works on this machine, and logs which one and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.engine.manifest import EngineManifest, read_engine_manifest
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.environment import gpus
from diffclean.errors import DiffcleanError, Interrupted, MissingExtraError, UsageError
from diffclean.families.registry import family_named
from diffclean.runtime.base import Runtime, as_exported
from diffclean.runtime.probe import DRIVEN, NEED_GPU, auto_order, probe_one

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


class Engine:
    """An open engine: its family, its manifest, and the runtime that runs its components."""

    def __init__(self, directory: Path, manifest: EngineManifest, runtime: Runtime) -> None:
        self.directory = directory
        self.manifest = manifest
        self.runtime = runtime
        self.family = family_named(manifest.family)

    def call(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run a component, see `Runtime.run`."""
        return self.runtime.run(component, inputs)

    @property
    def identity(self) -> str:
        """What determines the bytes of the output: fingerprint, runtime and precision."""
        return f"{self.manifest.fingerprint[:16]}/{self.runtime.name}/{self.runtime.precision}"


MakeReady = Callable[[Path, str], Path]
"""A function from (engine directory, runtime) to the directory with the compiled engine of that runtime."""


def open_runtime(
    name: str,
    directory: Path,
    manifest: EngineManifest,
    precision: str | None = None,
    threads: int | None = None,
    make_ready: MakeReady | None = None,
) -> Runtime:
    """Open one runtime by name.

    Args:
        name: one of `DRIVEN`.
        directory: the engine directory.
        manifest: its manifest.
        precision: fp32, fp16 or bf16; None stands for the runtime's best.
        threads: the number of threads of the runtime; None stands for all cores.
        make_ready: called before a runtime that opens only compiled engines; None if these must exist already.

    Raises:
        UsageError: the name is unknown, or the runtime does not have that precision.
        DiffcleanError: the runtime does not work here, or needs a compiled engine that does not exist.
    """
    if name == "openvino":
        from diffclean.runtime.openvino import OpenVino

        return OpenVino(directory, manifest, precision, threads)
    if name in ("onnxruntime", "onnxruntime-cuda"):
        from diffclean.runtime.onnxruntime import OnnxRuntime

        return OnnxRuntime(directory, manifest, precision, threads, "cuda" if name == "onnxruntime-cuda" else "cpu")
    if name in ("torch", "torch-compile"):
        from diffclean.runtime.torch import Torch

        return Torch(manifest, precision, threads, name == "torch-compile")
    if name in FLAVOURS:
        from diffclean.runtime.tensorrt import TensorRt

        precision = as_exported(name, manifest, precision)
        if not (status := probe_one(name)).usable:
            raise DiffcleanError(f"The runtime {name} does not work here: {status.reason}.", status.hint)
        directory = make_ready(directory, name) if make_ready is not None else directory
        return TensorRt(directory, manifest, name, precision)
    raise UsageError(f"There is no runtime {name!r}.", f"Known: auto, {', '.join(DRIVEN)}.")


def graph_precision(runtime: str, precision: str | None) -> str:
    """The precision in which graphs are exported for a runtime: half precision for a GPU, fp32 for a CPU.

    CPU runtimes that compute in bf16 do so from fp32 graphs.
    """
    if runtime in ("openvino", "onnxruntime") or not gpus():
        return "fp32"
    return precision or "fp16"


def open_engine(
    directory: Path,
    runtime: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    make_ready: MakeReady | None = None,
) -> Engine:
    """Open an engine directory, after its files were checked.

    Args:
        directory: an engine directory, with `engine.json` and one folder for each component.
        runtime: one of `DRIVEN`, or "auto" for the first that works.
        precision: fp32, fp16 or bf16; None stands for the runtime's best.
        threads: the number of threads of the runtime; None stands for all cores.
        make_ready: as for `open_runtime`; `export.opening` has the function that compiles.

    Raises:
        DiffcleanError: a file does not match its hash, a graph is refused, or no runtime works here.
    """
    manifest = read_engine_manifest(directory)
    if found := manifest.changed(directory):
        raise DiffcleanError(f"The engine in {directory} was changed: {'; '.join(found)}.", "Export it again.")
    manifest.check_graphs(directory)
    if runtime != "auto":
        return Engine(directory, manifest, open_runtime(runtime, directory, manifest, precision, threads, make_ready))
    return Engine(directory, manifest, _best(directory, manifest, precision, threads, make_ready))


def _best(
    directory: Path,
    manifest: EngineManifest,
    precision: str | None,
    threads: int | None,
    make_ready: MakeReady | None,
) -> Runtime:
    """Open the first runtime that works; log which one it is, and why those before it were not used."""
    refused: list[str] = []
    without_gpu: list[str] = []
    for name in auto_order():
        if name in NEED_GPU and not gpus():
            without_gpu.append(name)
            continue
        status = probe_one(name)
        if not status.usable:
            refused.append(f"{name}: {status.reason}")
            continue
        try:
            opened = open_runtime(name, directory, manifest, precision, threads, make_ready)
        except Interrupted:
            raise
        except (MissingExtraError, UsageError) as error:  # not installed, or not with this precision
            refused.append(f"{name}: {error.message}")
            continue
        except Exception as error:  # it is installed but does not work here; the next one may
            log.warning("Runtime %s fails: %s", name, error)
            refused.append(f"{name} fails: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        if without_gpu:
            refused.insert(0, f"no NVIDIA GPU for {', '.join(without_gpu)}")
        log.info("Runtime %s in %s%s.", name, opened.precision, f" ({'; '.join(refused)})" if refused else "")
        return opened
    raise DiffcleanError("No runtime works here: " + "; ".join(refused) + ".", "See `diffclean doctor`.")
