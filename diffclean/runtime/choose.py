"""Open an engine on the best runtime that really works here, and say which and why."""

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


MakeReady = Callable[[Path, str], Path]
"""(engine directory, runtime) -> the engine directory where the compiled engine of that runtime lies."""


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
        precision: fp32, fp16 or bf16; None takes the runtime's best.
        threads: of the runtime; None takes all cores.
        make_ready: called before a runtime that opens compiled engines only; None: they must be there already.

    Raises:
        UsageError: unknown name, or a precision that the runtime does not have.
        DiffcleanError: it does not work here, or it needs a compiled engine that is not there.
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
    """What an engine that is made for a runtime computes in: half precision for a GPU, fp32 for a CPU.

    CPU runtimes that compute in bf16 do so from fp32 graphs by themselves.
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
    """Open an engine directory after checking its files.

    Args:
        directory: an engine directory: `engine.json` and a folder a component.
        runtime: one of `DRIVEN`, or "auto" for the first that works.
        precision: fp32, fp16 or bf16; None takes the runtime's best.
        threads: of the runtime; None takes all cores.
        make_ready: as for `open_runtime`; `export.opening` has the one that compiles.

    Raises:
        DiffcleanError: a file does not match its hash, or no runtime works here.
    """
    manifest = read_engine_manifest(directory)
    if found := manifest.changed(directory):
        raise DiffcleanError(f"The engine in {directory} was changed: {'; '.join(found)}.", "Export it again.")
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
    """The first runtime that works; says which, and why not those before it."""
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
        except (MissingExtraError, UsageError) as error:  # not there, or not in this precision
            refused.append(f"{name}: {error.message}")
            continue
        except Exception as error:  # installed, but it does not work here: the next one may
            log.warning("Runtime %s fails: %s", name, error)
            refused.append(f"{name} fails: {(str(error).splitlines() or [type(error).__name__])[0]}")
            continue
        if without_gpu:
            refused.insert(0, f"no NVIDIA GPU for {', '.join(without_gpu)}")
        log.info("Runtime %s in %s%s.", name, opened.precision, f" ({'; '.join(refused)})" if refused else "")
        return opened
    raise DiffcleanError("No runtime works here: " + "; ".join(refused) + ".", "See `diffclean doctor`.")
