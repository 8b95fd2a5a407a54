"""OpenVINO's own format of a component (IR): its files, what determines it, and whether an existing one fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffclean.data.hashes import damage, short
from diffclean.engine.manifest import EngineManifest
from diffclean.errors import MissingExtraError

TARGET = "openvino"
"""The name of this form among the targets of an export and among the runtimes."""
FILES = ("openvino.xml", "openvino.bin")
"""The files in the folder of a component: the graph and its weights."""


def openvino_version() -> str:
    """The version of the installed OpenVINO, with its build number.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino", "cpu") from None
    return str(openvino.__version__)


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
