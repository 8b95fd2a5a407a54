"""OpenVINO's own form of a component (IR): its files, what decides it, and whether the one that is there fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffclean.data.hashes import damage, short
from diffclean.engine.manifest import EngineManifest
from diffclean.errors import MissingExtraError

TARGET = "openvino"
"""Its name among the targets of an export and the runtimes."""
FILES = ("openvino.xml", "openvino.bin")
"""In a component's folder: the graph, and its weights."""


def openvino_version() -> str:
    """The installed version, with its build.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "cpu") from None
    return str(openvino.__version__)


def form_key(manifest: EngineManifest, component: str) -> dict[str, Any]:
    """Everything that decides a component's form."""
    graph = manifest.graph_sha256(component)
    return {"runtime_version": openvino_version(), "graph": graph, "precision": manifest.precision}


def form_problem(place: Path, manifest: EngineManifest, component: str) -> str | None:
    """Why the form that is there cannot be used, "" where there is none; None: it can."""
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
