"""OpenVINO: its core, and its own format of a component (IR): files, what determines it, and whether one fits."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

from diffclean.data.hashes import damage, short
from diffclean.engine.manifest import EngineManifest
from diffclean.errors import MissingExtraError

TARGET = "openvino"
"""The name of this form among the targets of an export and among the runtimes."""
FILES = ("openvino.xml", "openvino.bin")
"""The files in the folder of a component: the graph and its weights."""
_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry; the whole of diffclean imports it through this function.

    Otherwise each import sends an event with an identifier, which is kept in the home folder, to a service for
    analytics, from a forked process. OpenVINO does without where the package of its telemetry is not installed, so the
    package looks like that during the import. Nothing is changed if somebody imported one of both before.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    seen = _TELEMETRY in sys.modules
    if not seen:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # this is how Python is told that there is no module
    try:
        import openvino
    finally:
        if not seen:
            sys.modules.pop(_TELEMETRY, None)
    return openvino


def openvino_version() -> str:
    """The version of the installed OpenVINO, with its build number.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return str(import_openvino().__version__)
    except ImportError:
        raise MissingExtraError("openvino", "cpu") from None


@cache
def openvino_core() -> Any:
    """OpenVINO's core: one for the whole process, which is never destroyed.

    A core makes its CPU plugin when it first needs it. The plugin gives the thread that runs it a stack for signal
    handlers, and frees this stack when it is destroyed, even if another thread destroys it, as Python's garbage
    collector may. The next signal of the first thread, such as Ctrl-C or the end of a child process, then ends the
    process without a word.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    return import_openvino().Core()


def form_key(manifest: EngineManifest, component: str) -> dict[str, Any]:
    """Everything that determines the form of a component."""
    graph = manifest.graph_sha256(component)
    return {"runtime_version": openvino_version(), "graph": graph, "precision": manifest.precision}


def form_problem(place: Path, manifest: EngineManifest, component: str) -> str | None:
    """Why an existing form cannot be used; "" if there is none, None if it can be used."""
    form = manifest.form(component, TARGET)
    if form is None:
        return ""
    different = [
        f"its {name.replace('_', ' ')} is {short(form.key.get(name))}, wanted is {short(value)}"
        for name, value in form_key(manifest, component).items()
        if form.key.get(name) != value
    ]
    files = {name: form.files.get(name, "") for name in (f"{component}/{file}" for file in FILES)}
    return "; ".join(different or damage(place, files)) or None
