"""The options of compiled forms, and the two ways of compiling: that of OpenVINO and that of TensorRT."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diffclean.data.hashes import sha256_of
from diffclean.engine.manifest import GRAPH_NAME, CompiledForm, EngineManifest
from diffclean.engine.openvino import FILES as IR_FILES
from diffclean.engine.openvino import TARGET, form_key, form_problem
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.engine.tensorrt_targets import Arch, Profile, closest_profile, least_arch
from diffclean.environment import cache_dir, gpus
from diffclean.errors import UsageError
from diffclean.export.openvino import ir_from_onnx
from diffclean.progress import Progress

TARGETS = ("onnx", "openvino", *FLAVOURS)
"""What `export` can make; every engine has the ONNX graphs."""


@dataclass(frozen=True)
class CompileOptions:
    """What an engine is compiled for.

    Attributes:
        targets: some of `TARGETS`.
        batch: the batch sizes (TensorRT).
        guided: whether a usual call of the denoiser has both halves of guidance, and so twice the images.
        arch: the GPUs (TensorRT-RTX); None stands for a form that runs on most.
        accept: whether any engine that runs here at the usual batch is good enough, whatever else it was compiled for.
        weights: how the large weights of the denoiser are stored, which not every GPU can read.
    """

    targets: tuple[str, ...]
    batch: Profile
    guided: bool = False
    arch: tuple[Arch, ...] | None = None
    accept: bool = False
    weights: str | None = None

    def profiles(self, component: str) -> tuple[Profile, ...]:
        """The batch sizes that a component is compiled for: any in the range, and tuned for the usual one."""
        if component != "unet":
            return self.batch.both()
        low, best, high = self.batch.minimum, self.batch.optimum, self.batch.maximum
        return Profile(low, best * 2 if self.guided else best, high * 2).both()


def parse_targets(text: str) -> tuple[str, ...]:
    """Turn `openvino` into ("onnx", "openvino"), in the order of `TARGETS`.

    Raises:
        UsageError: a target is not known.
    """
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := [name for name in asked if name not in TARGETS]:
        raise UsageError(f"There is no target {', '.join(map(repr, unknown))}.", f"Known: {', '.join(TARGETS)}.")
    return tuple(name for name in TARGETS if name in {"onnx", *asked})


class Form(Protocol):
    """A way of compiling the components of an engine."""

    target: str

    def problem(self, place: Path, manifest: EngineManifest, component: str) -> str | None:
        """Why an existing compiled component cannot be used; "" if there is none, None if it can be used."""

    def make(
        self,
        place: Path,
        manifest: EngineManifest,
        component: str,
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> None:
        """Compile a component; its files are written whole or not at all."""

    def record(self, place: Path, manifest: EngineManifest, component: str) -> CompiledForm:
        """The entry about the compiled component in `engine.json`."""


class OpenVinoForm:
    """OpenVINO's way of compiling, see `export.openvino`."""

    target = TARGET

    def problem(self, place: Path, manifest: EngineManifest, component: str) -> str | None:
        """See `Form`."""
        return form_problem(place, manifest, component)

    def make(
        self,
        place: Path,
        manifest: EngineManifest,
        component: str,
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> None:
        """See `Form`."""
        progress.begin(f"openvino {component}", 1, "components")
        try:
            ir_from_onnx(place / component / GRAPH_NAME)
            progress.advance()
        finally:
            progress.end()

    def record(self, place: Path, manifest: EngineManifest, component: str) -> CompiledForm:
        """See `Form`."""
        files = [place / component / name for name in IR_FILES]
        return _recorded(place, component, self.target, files, form_key(manifest, component))


class TensorRtForm:
    """TensorRT's way of compiling, see `export.tensorrt`."""

    def __init__(self, flavour: str, options: CompileOptions) -> None:
        self.target, self._options = flavour, options

    def problem(self, place: Path, manifest: EngineManifest, component: str) -> str | None:
        """See `Form`."""
        from diffclean.engine.tensorrt_key import engine_file, why_not

        engine = engine_file(place / component, self.target)
        return why_not(engine, self._wanted(place, manifest, component)) if engine.exists() else ""

    def make(
        self,
        place: Path,
        manifest: EngineManifest,
        component: str,
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> None:
        """See `Form`."""
        from diffclean.engine.tensorrt_key import engine_file
        from diffclean.export.tensorrt import build_engine

        onnx, engine = place / component / GRAPH_NAME, engine_file(place / component, self.target)
        measured = cache_dir() / "tensorrt" / "timing.cache" if FLAVOURS[self.target].timing_cache else None
        key = self._wanted(place, manifest, component)
        build_engine(onnx, engine, key, manifest.components[component], measured, progress, stop)

    def record(self, place: Path, manifest: EngineManifest, component: str) -> CompiledForm:
        """See `Form`."""
        from diffclean.engine.tensorrt_key import engine_file, key_path, load_key

        engine = engine_file(place / component, self.target)
        key = load_key(engine).to_json()
        named = {"runtime_version": key.pop("library_version"), "graph": key.pop("onnx_sha256"), **key}
        return _recorded(place, component, self.target, [engine, key_path(engine)], named)

    def _wanted(self, place: Path, manifest: EngineManifest, component: str) -> Any:
        """The key of the wanted engine.

        If any engine that runs here is accepted, and there is one, it is that engine's key.
        """
        from dataclasses import replace

        from diffclean.engine.tensorrt_key import engine_file, load_key
        from diffclean.errors import DiffcleanError
        from diffclean.export.tensorrt import engine_key

        profiles = self._options.profiles(component)
        onnx = place / component / GRAPH_NAME
        arch, least = self._options.arch, least_arch(manifest.weights)
        wanted = engine_key(onnx, self.target, manifest.precision, profiles, arch, least=least)
        if not self._options.accept:
            return wanted
        try:
            there = load_key(engine_file(place / component, self.target))
        except DiffcleanError:
            return wanted
        usual = [profile.optimum for profile in profiles]
        if any(closest_profile(there.profiles, batch) is None for batch in usual):
            return wanted
        if gpus() and not there.runs_on(gpus()[0].capability):
            return wanted
        return replace(wanted, profiles=there.profiles, arch=there.arch, memory_limit_bytes=there.memory_limit_bytes)


def _recorded(place: Path, component: str, target: str, files: list[Path], key: dict[str, Any]) -> CompiledForm:
    hashes = {path.relative_to(place).as_posix(): sha256_of(path) for path in files}
    return CompiledForm(component, target, hashes, key)


def form_for(target: str, options: CompileOptions) -> Form:
    """The way of compiling for a target other than ONNX."""
    return OpenVinoForm() if target == "openvino" else TensorRtForm(target, options)
