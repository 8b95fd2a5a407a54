"""Compiles ONNX to an engine of TensorRT or TensorRT-RTX, with the key that determines it. See docs/tensorrt.md.

The network is strongly typed, so the precision is that of the graph. With TensorRT-RTX nothing here needs a GPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffclean.data.atomic import make_folders, write_whole
from diffclean.engine.tensorrt_key import EngineKey, onnx_digest, why_not, write_engine
from diffclean.engine.tensorrt_library import (
    Flavour,
    Said,
    flavour_named,
    logger_for,
    port_mismatch,
    without_driver_noise,
)
from diffclean.engine.tensorrt_targets import Arch, Profile
from diffclean.errors import DiffcleanError, UsageError
from diffclean.export.tensorrt_progress import Watch
from diffclean.families.base import Signature
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)

_REPORT = "Report it with the versions that `diffclean doctor` shows; `runtime` onnxruntime runs the graph as it is."


def engine_key(
    onnx: Path,
    flavour: str,
    precision: str,
    profiles: Sequence[Profile],
    arch: tuple[Arch, ...] | None = None,
    flags: Sequence[str] = (),
    memory_limit_bytes: int | None = None,
    least: Arch | None = None,
) -> EngineKey:
    """The key of the engine that this machine would compile.

    Args:
        onnx: the graph.
        flavour: "tensorrt" or "tensorrt-rtx".
        precision: the precision of the graph, which is only recorded: the graph determines it.
        profiles: the batch sizes, see `Profile.both`.
        arch: the compute capabilities to compile for; None stands for this machine's GPU, or with TensorRT-RTX for a
            form that runs on most GPUs.
        flags: builder flags in addition to the usual ones.
        memory_limit_bytes: the scratch memory that a layer may use; None stands for no limit.
        least: the smallest compute capability that the types in the graph need; None stands for any.

    Raises:
        MissingExtraError: the library is not installed.
        UsageError: the library has no such target or flag.
        DiffcleanError: the graph is damaged, or the library needs a GPU and there is none.
    """
    library = flavour_named(flavour)
    trt = library.load()
    targets, gpu = library.targets(trt, arch, least)
    names = library.flag_names(flags)
    if unknown := [name for name in names if name.lstrip("-") not in trt.BuilderFlag.__members__]:
        raise UsageError(
            f"{library.title} {trt.__version__} has no builder flag {', '.join(unknown)}.",
            f"pip install --upgrade 'diffclean[{library.extra}]'",
        )
    digest = onnx_digest(onnx)
    return EngineKey(
        flavour, trt.__version__, digest, precision, targets, gpu, tuple(profiles), names, memory_limit_bytes
    )


def ensure_engine(
    onnx: Path,
    engine: Path,
    key: EngineKey,
    signature: Signature,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> bool:
    """Call `build_engine`, unless the wanted engine exists already; log why an existing one cannot be used.

    Returns:
        Whether it was built.
    """
    if (problem := why_not(engine, key)) is None:
        return False
    if engine.exists():
        log.warning("Compiling %s again: %s.", engine, problem)
    build_engine(onnx, engine, key, signature, timing_cache, progress, stop)
    return True


def build_engine(
    onnx: Path,
    engine: Path,
    key: EngineKey,
    signature: Signature,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Compile a graph, and write the engine with its key beside it, both whole or neither.

    Args:
        onnx: the graph; its weights may be in files beside it.
        engine: the file to write.
        key: what to compile, see `engine_key`.
        signature: the expected inputs and outputs of the graph, without the batch axis.
        timing_cache: a file of measured kernel times, which is read if it exists, and written (TensorRT only).
        progress: receives the progress of the build in per cent.
        stop: when set, the build ends at its next step.

    Raises:
        Interrupted: `stop` was set.
        DiffcleanError: the graph cannot be compiled (with the complete report of the library), or the engine cannot be
            written.
    """
    library = flavour_named(key.flavour)
    trt = library.load()
    logger, said = logger_for(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError:  # the binding raises this if the library returns nothing
        raise DiffcleanError(f"{library.title} does not start:\n{said.text()}", "See `diffclean doctor`.") from None
    network = _network(trt, library, builder, logger, onnx)
    _check(network, signature, key.profiles, onnx)
    config = _config(trt, builder, network, key, said)
    cache = _timing_cache(library, config, timing_cache)
    watch = Watch(progress or NoProgress(), stop)
    plan = watch.run(trt, f"compile {onnx.parent.name}", builder, network, config)
    if plan is None:
        raise DiffcleanError(f"{library.title} {trt.__version__} cannot compile {onnx}:\n{said.text()}", _REPORT)
    write_engine(engine, plan, key)
    if timing_cache is not None and cache is not None:
        make_folders(timing_cache.parent)
        write_whole(timing_cache, bytes(config.get_timing_cache().serialize()))


def _network(trt: Any, library: Flavour, builder: Any, logger: Any, onnx: Path) -> Any:
    """Parse the graph into a network."""
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        report = "\n".join(_parser_error(parser.get_error(index)) for index in range(parser.num_errors))
        raise DiffcleanError(f"{library.title} {trt.__version__} cannot read {onnx}:\n{report}", _REPORT)
    return network


def _check(network: Any, signature: Signature, profiles: Sequence[Profile], onnx: Path) -> None:
    """Refuse a network that differs from its declaration; the parser accepts any file of bytes as some graph."""
    taken = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    given = {tensor.name: tensor for tensor in map(network.get_output, range(network.num_outputs))}
    wrong = []
    for kind, ports, tensors in (("input", signature.inputs, taken), ("output", signature.outputs, given)):
        if sorted(tensors) != sorted(port.name for port in ports):
            found, names = ", ".join(tensors) or "none", ", ".join(port.name for port in ports)
            wrong.append(f"its {kind}s are {found}; expected {names}")
            continue
        mismatches = (port_mismatch(port, tensors[port.name].dtype, tensors[port.name].shape) for port in ports)
        wrong += [f"its {kind} {mismatch}" for mismatch in mismatches if mismatch]
    for name, size in ((name, tuple(tensor.shape)[:1]) for name, tensor in taken.items()):
        other = sorted({str(each) for each in profiles} - {str(fixed) for fixed in size})
        if size not in ((), (-1,)) and other:
            wrong.append(f"its input {name} takes batches of {size[0]} only; asked for: {', '.join(other)}")
    if wrong:
        lines = "\n".join(f"  {line}" for line in wrong)
        raise DiffcleanError(f"{onnx} is not the graph that was declared:\n{lines}", "Export the model again.")


def _parser_error(error: Any) -> str:
    """One complaint of the parser, with the node and the place in the parser."""
    lines = without_driver_noise([line for line in error.desc().splitlines() if line.strip()])
    # For an unknown operator, the whole description is the failed condition: "false".
    what = "\n    ".join(lines) if lines != ["false"] else "it has no such operator"
    node = f"node {error.node()} {error.node_name()!r} ({error.node_operator()})" if error.node() >= 0 else "the file"
    return f"  {node}: {what} [{error.code().name}, {error.func()}, {error.file()}:{error.line()}]"


def _config(trt: Any, builder: Any, network: Any, key: EngineKey, said: Said) -> Any:
    """The flags, targets, limits and profiles of a build."""
    config = builder.create_builder_config()
    for name in key.flags:
        flag = trt.BuilderFlag.__members__[name.lstrip("-")]
        if name.startswith("-"):
            config.clear_flag(flag)
        else:
            config.set_flag(flag)
    if key.memory_limit_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, key.memory_limit_bytes)
    if key.arch and not flavour_named(key.flavour).needs_gpu:
        config.num_compute_capabilities = len(key.arch)
        for index, (major, minor) in enumerate(key.arch):
            config.set_compute_capability(trt.ComputeCapability.__members__[f"SM{major}{minor}"], index)
    for batches in key.profiles:
        profile = builder.create_optimization_profile()
        for tensor in map(network.get_input, range(network.num_inputs)):
            rest = tuple(tensor.shape)[1:]
            sizes = (batches.minimum, batches.optimum, batches.maximum)
            profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
        if config.add_optimization_profile(profile) < 0:
            raise DiffcleanError(f"The batch sizes {batches} are refused:\n{said.text()}")
    return config


def _timing_cache(library: Flavour, config: Any, path: Path | None) -> Any:
    """The timing cache of a build, from the file if that is usable; None if none is wanted."""
    if path is None:
        return None
    if not library.timing_cache:
        raise UsageError(f"{library.title} has no timing cache.", "Leave it out.")
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, False):
        log.info("The timing cache %s is for another GPU or version, or damaged; a new one is begun.", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
