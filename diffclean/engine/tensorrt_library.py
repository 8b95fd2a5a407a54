"""TensorRT and TensorRT-RTX, two libraries with one API. All differences between them are in `FLAVOURS`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from diffclean.engine.tensorrt_targets import PORTABLE_FROM, Arch, arch_text
from diffclean.environment import gpus, why_no_gpu
from diffclean.errors import DiffcleanError, MissingExtraError, UsageError
from diffclean.families.base import Port

log = logging.getLogger(__name__)

COMMON_FLAGS = ("STRICT_NANS", "-TF32")
"""The builder flags of every engine. The decoder reports which images are finite, so 0 * x must not become 0; and fp32
must be exactly fp32."""

_TOO_OLD = "GPUs read weights in fp8 from compute capability {} (Ada Lovelace) on."
_USE_INT8 = "Use `weights` int8, which every GPU reads, or leave `weights` out."
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8", "bool": "BOOL", "int64": "INT64", "int32": "INT32"}
# A library without a driver adds this to every error, whatever the error was.
_NO_DRIVER = "cudaError 35"


@dataclass(frozen=True)
class Flavour:
    """One of the two libraries, and what it can do.

    Attributes:
        name: the name that `--runtime` takes.
        title: the name as NVIDIA writes it.
        module: the module that is imported.
        extra: the extra of diffclean that installs it.
        needs_gpu: whether it compiles only on the GPU that the engine will run on.
        flags: the builder flags that its engines need in addition to `COMMON_FLAGS`.
        timing_cache: whether measured kernel times can be kept from one build to the next.
        version_compatible: whether it can make engines that run with later versions.
        refit: whether the weights of an engine can be exchanged.
        runtime_cache: whether it compiles kernels when an engine is first run, and can keep them.
        asks_capture: whether it must be asked if an engine can be recorded as a CUDA graph; with the other library this
            is always possible.
        supported: whether it runs on GPUs of a compute capability.
    """

    name: str
    title: str
    module: str
    extra: str
    needs_gpu: bool
    flags: tuple[str, ...]
    timing_cache: bool
    version_compatible: bool
    refit: bool
    runtime_cache: bool
    asks_capture: bool
    supported: Callable[[Arch], bool]

    def load(self) -> ModuleType:
        """Import the library.

        Raises:
            MissingExtraError: it is not installed, or it is only the empty package of that name from the registry.
        """
        try:
            module = importlib.import_module(self.module)
        except ImportError:
            raise MissingExtraError(self.title, self.extra) from None
        if not hasattr(module, "Builder"):
            raise MissingExtraError(self.title, self.extra)
        return module

    def flag_names(self, extra: Iterable[str] = ()) -> tuple[str, ...]:
        """The builder flags of an engine.

        Raises:
            UsageError: `extra` contains a flag that the library does not support.
        """
        extra = tuple(extra)
        cannot = {"VERSION_COMPATIBLE": not self.version_compatible, "REFIT": not self.refit}
        if refused := [flag for flag in extra if cannot.get(flag)]:
            raise UsageError(f"{self.title} cannot compile with {', '.join(refused)}.", "Leave it out.")
        return (*COMMON_FLAGS, *self.flags, *extra)

    def targets(
        self, trt: Any, arch: tuple[Arch, ...] | None, least: Arch | None = None
    ) -> tuple[tuple[Arch, ...], str]:
        """The GPUs to compile for, and the GPU to compile on: (compute capabilities, its name or "").

        Args:
            trt: the library.
            arch: the architectures that are asked for; None stands for this machine's GPU, or a form that runs on most.
            least: the smallest architecture that the types in the graph need; None stands for any.

        Raises:
            UsageError: the library has no such target, or a target is below `least`.
            DiffcleanError: it needs a GPU and there is none, or the GPU is below `least`.
        """
        if self.needs_gpu:
            if not gpus():
                raise DiffcleanError(
                    f"{self.title} compiles on the GPU that the engine will run on, but here {why_no_gpu()}.",
                    "Compile on that machine, or with tensorrt-rtx, which needs no GPU to compile.",
                )
            here = gpus()[0]
            if set(arch or [here.capability]) != {here.capability}:
                raise UsageError(
                    f"{self.title} compiles for this machine's {here.name} ({here.capability_text}) only, "
                    f"not for {arch_text(arch or ())}.",
                    "Leave `arch` out, or use `runtime` tensorrt-rtx.",
                )
            if least and here.capability < least:
                raise DiffcleanError(f"{_TOO_OLD.format(arch_text([least]))} Here is {here.name}.", _USE_INT8)
            return (here.capability,), here.name
        known = trt.ComputeCapability.__members__
        if unknown := sorted({each for each in arch or () if f"SM{each[0]}{each[1]}" not in known}):
            raise UsageError(
                f"{self.title} has no target {arch_text(unknown)}; it has {_targets_text(known)}.",
                "Hopper (9.0) and data-centre Blackwell (10.0) need `runtime` tensorrt.",
            )
        if least and (older := [each for each in arch or () if each < least]):
            raise UsageError(f"{_TOO_OLD.format(arch_text([least]))} Asked for: {arch_text(older)}.", _USE_INT8)
        if least and not arch:  # the portable form would also be for GPUs that are too old
            return tuple(sorted(each for each in map(_arch_named, known) if each and each >= least)), ""
        if not arch and gpus() and gpus()[0].capability < PORTABLE_FROM:
            arch = (gpus()[0].capability,)  # the portable default does not include Turing
        return tuple(sorted(set(arch or ()))), ""


def _arch_named(name: str) -> Arch | None:
    """(8, 9) for SM89; None for names that are no architecture."""
    return divmod(int(name[2:]), 10) if name.startswith("SM") else None


def _targets_text(names: Iterable[str]) -> str:
    return arch_text(sorted(each for each in map(_arch_named, names) if each))


FLAVOURS: Mapping[str, Flavour] = {
    "tensorrt": Flavour(
        "tensorrt",
        "TensorRT",
        "tensorrt",
        "gpu",
        needs_gpu=True,
        flags=(),
        timing_cache=True,
        version_compatible=True,
        refit=True,
        runtime_cache=False,
        asks_capture=False,
        supported=lambda capability: capability >= (7, 5),
    ),
    # Without a GPU, the timing cache has no effect, and either of the next two flags ends the build.
    "tensorrt-rtx": Flavour(
        "tensorrt-rtx",
        "TensorRT-RTX",
        "tensorrt_rtx",
        "rtx",
        needs_gpu=False,
        flags=("REQUIRE_USER_ALLOCATION",),  # otherwise it may allocate memory while a CUDA graph is recorded
        timing_cache=False,
        version_compatible=False,
        refit=False,
        runtime_cache=True,
        asks_capture=True,
        supported=lambda capability: capability == (7, 5) or capability[0] in (8, 12),
    ),
}


def flavour_named(name: str) -> Flavour:
    """The library with a name.

    Raises:
        UsageError: there is no such library.
    """
    if name not in FLAVOURS:
        raise UsageError(f"There is no TensorRT library {name!r}.", f"Known: {', '.join(FLAVOURS)}.")
    return FLAVOURS[name]


class Said:
    """The complaints of a library, for the message of the error that follows."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def text(self) -> str:
        """The errors, one on each line. Those about a missing driver are omitted if there are others."""
        lines = list(dict.fromkeys(line for error in self.errors for line in error.splitlines() if line.strip()))
        return "\n".join(f"  {line}" for line in without_driver_noise(lines)) or "  (it did not say why)"


def without_driver_noise(lines: list[str]) -> list[str]:
    """The lines without those about a missing driver, unless there are no others: compiling needs no driver."""
    return [line for line in lines if _NO_DRIVER not in line] or lines


def logger_for(trt: Any) -> tuple[Any, Said]:
    """A logger for the library that writes to Python's logging (never to stdout), and the complaints it collects."""
    said = Said()
    errors = (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR)

    class Listener(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                said.errors.append(message)
            if severity in errors or severity == trt.ILogger.WARNING:
                log.debug("%s: %s", severity.name, message)

    return Listener(), said


def port_mismatch(port: Port, dtype: Any, shape: Iterable[int]) -> str | None:
    """What is wrong with a tensor that should fit `port`, with the batch axis first; None if nothing is.

    Tensors are bound by address, so a wrong type or shape would make the library read and write beyond its memory.
    """
    dims = tuple(shape)
    if dtype.name == _DTYPES.get(port.dtype) and len(dims) == 1 + len(port.shape) and dims[1:] == port.shape:
        return None
    expected = f"{_DTYPES.get(port.dtype, port.dtype)} {['batch', *port.shape]}".replace("'", "")
    return f"{port.name} is {dtype.name} {list(dims)}; expected {expected}"
