"""Compiles an engine for runtimes. Each compiled form is recorded in `engine.json` as soon as it is complete."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from diffclean.engine.manifest import CompiledForm, EngineManifest, read_engine_manifest
from diffclean.engine.openvino import openvino_version
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.engine.tensorrt_targets import least_arch
from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.export.cache import locked
from diffclean.export.forms import CompileOptions, Form, form_for
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """A compiled form that exists now.

    Attributes:
        form: the form.
        made: whether it was made just now; if not, it existed and fits.
        why: what was wrong with the earlier form; "" if there was none.
    """

    form: CompiledForm
    made: bool
    why: str = ""


def check_targets(options: CompileOptions) -> None:
    """Refuse targets that cannot be compiled on this machine, before anything is made.

    Raises:
        MissingExtraError: a library is not installed.
        DiffcleanError: TensorRT finds no GPU.
        UsageError: a library does not know an architecture, an architecture is given without a TensorRT target, or it
            does not compute with the stored weights.
    """
    for error in lacking(options).values():
        raise error


def lacking(options: CompileOptions) -> dict[str, DiffcleanError]:
    """The targets that cannot be compiled on this machine, and why.

    Raises:
        UsageError: as for `check_targets`.
    """
    if options.arch and not set(options.targets) & set(FLAVOURS):
        raise UsageError("`arch` is for TensorRT, which is not one of the targets.", "Add `target` tensorrt-rtx.")
    found = {}
    for target in options.targets:
        try:
            if target == "openvino":
                openvino_version()
            elif target in FLAVOURS:
                FLAVOURS[target].targets(FLAVOURS[target].load(), options.arch, least_arch(options.weights))
        except UsageError:
            raise
        except DiffcleanError as error:
            found[target] = error
    return found


def compile_engine(
    place: Path,
    options: CompileOptions,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """Make the forms that are missing or do not fit, one by one.

    If two callers do this at once, one compiles, and the other waits and then finds the forms.

    Args:
        place: an engine directory whose files were checked.
        options: what to make.
        progress: is advanced for each form.
        stop: when set, the work ends at the next step; finished forms are kept.

    Raises:
        Interrupted: `stop` was set.
        DiffcleanError: something cannot be compiled or written.
    """
    forms = [form_for(target, options) for target in options.targets if target != "onnx"]
    if not forms:
        return []
    outcomes = []
    try:
        with locked(place):
            manifest = read_engine_manifest(place)
            manifest.check_graphs(place)
            for form in forms:
                for component in manifest.components:
                    if stop is not None and stop.is_set():
                        raise Interrupted(
                            f"Stopped before {component} for {form.target}.",
                            "To continue, type the same command again.",
                        )
                    outcome = _ensured(form, place, manifest, component, progress or NoProgress(), stop)
                    if manifest.form(component, form.target) != outcome.form:
                        manifest = manifest.with_form(outcome.form)
                        manifest.write(place)
                    outcomes.append(outcome)
    except OSError as error:
        raise DiffcleanError(
            f"Cannot compile in {place}: {error.strerror or error}.",
            "Choose a folder with `out` that you can write to, on a disk with enough space.",
        ) from error
    return outcomes


def _ensured(
    form: Form,
    place: Path,
    manifest: EngineManifest,
    component: str,
    progress: Progress,
    stop: threading.Event | None,
) -> Outcome:
    why = form.problem(place, manifest, component)
    if why is not None:
        if why:
            log.warning("Compiling %s for %s again: %s.", component, form.target, why)
        else:
            log.info("Compiling %s for %s (once; kept in %s).", component, form.target, place)
        form.make(place, manifest, component, progress, stop)
    return Outcome(form.record(place, manifest, component), why is not None, why or "")
