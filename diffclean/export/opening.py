"""Opens an engine, after compiling what the runtime needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diffclean.engine.manifest import read_engine_manifest
from diffclean.engine.tensorrt_targets import Profile
from diffclean.export.cache import writable
from diffclean.export.compiled import compile_engine
from diffclean.export.forms import CompileOptions
from diffclean.families.registry import load_recipe
from diffclean.runtime.choose import Engine, open_engine


def open_compiled(
    directory: Path,
    runtime: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
) -> Engine:
    """Open an engine directory. TensorRT engines are compiled first if they do not exist or do not fit.

    Args:
        directory: as for `open_engine`.
        runtime: as for `open_engine`.
        precision: as for `open_engine`.
        threads: as for `open_engine`.
        batch: the batch size that an engine is compiled for; None stands for that of the recipe.

    Raises:
        DiffcleanError: a file does not match its hash, or no runtime works here.
    """
    return open_engine(directory, runtime, precision, threads, compiling(batch))


def compiling(batch: int | None = None) -> Callable[[Path, str], Path]:
    """The function through which `open_runtime` has TensorRT engines compiled for this GPU and a batch size.

    Args:
        batch: the batch size; None stands for that of the recipe.

    Returns:
        A function from (engine directory, runtime) to the directory with the compiled engine, which is the same
        directory, or a copy in the cache if the engine is prebuilt.
    """

    def make_ready(directory: Path, runtime: str) -> Path:
        defaults = load_recipe(read_engine_manifest(directory).family).defaults
        usual = batch or int(defaults["batch"])
        directory = writable(directory)
        options = CompileOptions((runtime,), Profile(1, usual, usual), defaults["guidance"] != 1, accept=True)
        compile_engine(directory, options)
        return directory

    return make_ready
