"""The result of `export` as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.export.export import MadeEngine
from diffclean.results import table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ExportedGraph:
    """The ONNX graph of a component.

    Attributes:
        bytes: the size of its files.
        parity: its difference from torch.
    """

    bytes: int
    parity: dict[str, Any]


@dataclass(frozen=True)
class CompiledEngine:
    """A component that was compiled for one runtime.

    Attributes:
        component: the name of the component.
        target: the runtime.
        made: whether it was made just now; if not, it existed and fits.
        why: what was wrong with an earlier one; empty if there was none.
        bytes: the size of its files.
        files: the sha256 by relative path.
        key: everything that determines it, such as the version of the runtime. In JSON these are beside the other
            fields.
    """

    component: str
    target: str
    made: bool
    why: str
    bytes: int
    files: dict[str, str]
    key: dict[str, Any]

    def for_json(self) -> dict[str, Any]:
        """The fields, with the entries of `key` beside them."""
        fields = dict(vars(self))
        return fields | fields.pop("key")


@dataclass(frozen=True)
class ExportResult:
    """An exported engine.

    Attributes:
        engine: the engine directory.
        family: the family of the model.
        fingerprint: the fingerprint of the engine.
        precision: the precision that it computes in.
        image_size: the side of the square that it regenerates, in pixels.
        weights: how the large weights of the denoiser are stored, int8 or fp8; None stands for the precision.
        exported: whether the graphs were made just now; if not, they existed already.
        components: the graphs by component.
        compiled: every component in every compiled form that was asked for.
    """

    engine: Path
    family: str
    fingerprint: str
    precision: str
    weights: str | None
    image_size: int
    exported: bool
    components: dict[str, ExportedGraph]
    compiled: list[CompiledEngine]

    def to_pandas(self) -> DataFrame:
        """A table with a row for each component and form: component, target, bytes, made. Needs pandas."""
        graphs = [
            {"component": name, "target": "onnx", "bytes": graph.bytes, "made": self.exported}
            for name, graph in self.components.items()
        ]
        return table([*graphs, *({name: getattr(each, name) for name in graphs[0]} for each in self.compiled)])


def result_of(report: MadeEngine) -> ExportResult:
    """The result of an export, with the sizes of its files on disk."""
    place, manifest = report.place, report.manifest
    graphs = {
        name: ExportedGraph(_bytes(place, manifest.files, name), dict(entry.parity or {}))
        for name, entry in manifest.components.items()
    }
    compiled = []
    for outcome in report.outcomes:
        form = outcome.form
        size = _bytes(place, form.files, form.component)
        compiled.append(
            CompiledEngine(form.component, form.target, outcome.made, outcome.why, size, form.files, form.key)
        )
    made = report.exported is not None
    described = manifest.family, manifest.fingerprint, manifest.precision, manifest.weights, manifest.image_size
    return ExportResult(place, *described, made, graphs, compiled)


def _bytes(place: Path, files: dict[str, str], component: str) -> int:
    return sum((place / name).stat().st_size for name in files if name.startswith(f"{component}/"))
