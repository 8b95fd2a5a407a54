"""`engine.json`: the content of an engine directory, and the hashes that prove that it is unchanged.

The fingerprint is a hash of everything that determines the output of an engine: the bytes of the graphs, the scheduler,
the preprocessing, the model it was made from, and the tools that made it. Files are checked against their hashes before
a runtime opens them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffclean.data.atomic import write_whole
from diffclean.data.hashes import hashes_below
from diffclean.data.json_file import read_json
from diffclean.engine.graph_check import check_graphs
from diffclean.engine.manifest_check import changed, check_content
from diffclean.errors import DiffcleanError
from diffclean.families.base import Port

FORMAT = 2
OPSET = 20
"""The ONNX opset of the graphs."""
FILE_NAME = "engine.json"
GRAPH_NAME = "model.onnx"
"""The graph in the folder of a component; large weights are beside it in `model.onnx.data`."""
SUMS_NAME = "SHA256SUMS.json"
"""The file in a model directory with the hashes that its files must have."""


def model_hashes(directory: Path) -> dict[str, str]:
    """The hashes of the files that determine a model's output: weights and configurations, but not its model card."""
    found = hashes_below(directory, (".safetensors", ".json"))
    return {name: digest for name, digest in found.items() if name != SUMS_NAME}


@dataclass(frozen=True)
class ComponentEntry:
    """One component of an engine: its signature (without the dynamic batch axis), and its parity with torch."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CompiledForm:
    """A component that was compiled for one runtime.

    Attributes:
        component: the name of the component.
        target: the runtime, see `export.forms.TARGETS`.
        files: the sha256 by relative path.
        key: everything that determines it: the version of the runtime, the hash of the graph, the precision, and GPUs
            and batch sizes.
    """

    component: str
    target: str
    files: dict[str, str]
    key: dict[str, Any]


@dataclass(frozen=True)
class EngineManifest:
    """The content of `engine.json`.

    Attributes:
        family: the name of the family.
        source: the model directory (`path`), the sha256 of each of its files (`files`), and the hub and revision if it
            has them.
        image_size: the side of the square, in pixels.
        scheduler: the configuration of the noise schedule, as diffusers stores it.
        components: the components by place.
        files: the sha256 of every file in the engine directory except this one.
        tools: the versions of the tools that made it.
        options: the options of the export, see `export.build.ExportOptions`.
        compiled: the forms that were compiled for runtimes; they are not part of the fingerprint.
    """

    family: str
    source: dict[str, Any]
    image_size: int
    scheduler: dict[str, Any]
    components: dict[str, ComponentEntry]
    files: dict[str, str]
    tools: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    compiled: list[CompiledForm] = field(default_factory=list)
    format: int = FORMAT

    @property
    def precision(self) -> str:
        """The precision that the graphs compute in: fp32, fp16 or bf16."""
        return str(self.options.get("precision", "fp32"))

    @property
    def weights(self) -> str | None:
        """How the large weights of the denoiser are stored: int8 or fp8; None stands for the precision."""
        stored = self.options.get("weights")
        return None if stored is None else str(stored)

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that determines the output, without the model's path and the measured parity."""
        content = asdict(self)
        content["source"].pop("path", None)
        content.pop("compiled")
        for component in content["components"].values():
            component.pop("parity")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def changed(self, directory: Path) -> list[str]:
        """What differs from the record in the engine in `directory`, one line for each file; empty if nothing does.

        Every graph that a runtime would load, with its weights, must be on record.
        """
        return changed(directory, self.components, self.files, GRAPH_NAME)

    def check_graphs(self, directory: Path) -> None:
        """Refuse graphs in `directory` that diffclean never exports, and that would harm the machine that runs them.

        Raises:
            DiffcleanError: names the graph, what was found, and what was expected.
        """
        check_graphs([directory / name / GRAPH_NAME for name in self.components], self.image_size, OPSET)

    def graph_sha256(self, component: str) -> str:
        """The hash of a component's graph with its weights, equal to `tensorrt_key.onnx_digest` of the files."""
        names = sorted(name for name in self.files if name.startswith(f"{component}/{GRAPH_NAME}"))
        digests = [self.files[name] for name in names]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def form(self, component: str, target: str) -> CompiledForm | None:
        """The recorded form of a component for a target, or None."""
        found = (form for form in self.compiled if (form.component, form.target) == (component, target))
        return next(found, None)

    def with_form(self, form: CompiledForm) -> EngineManifest:
        """The same engine with one more form, which replaces an earlier one of the same component and target."""
        others = [each for each in self.compiled if (each.component, each.target) != (form.component, form.target)]
        return replace(self, compiled=[*others, form])

    def write(self, directory: Path) -> None:
        """Write `engine.json` into `directory`, whole or not at all.

        Raises:
            WriteError: the disk is full or read-only, or there is no permission.
        """
        content = {**asdict(self), "fingerprint": self.fingerprint}
        write_whole(directory / FILE_NAME, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def read_engine_manifest(directory: Path) -> EngineManifest:
    """Read `engine.json`.

    Raises:
        DiffcleanError: it is missing or of another format, or its content does not match its own fingerprint.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DiffcleanError(f"{directory} is not an engine directory: {FILE_NAME} is missing.")
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise DiffcleanError(
                f"{path} has format {content['format']}; this diffclean reads format {FORMAT}.",
                "Export the model again.",
            )
        check_content(content)
        stated = content.pop("fingerprint")
        content["components"] = {
            name: ComponentEntry(_ports(entry["inputs"]), _ports(entry["outputs"]), entry["parity"])
            for name, entry in content["components"].items()
        }
        content["compiled"] = [CompiledForm(**form) for form in content["compiled"]]
        manifest = EngineManifest(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiffcleanError(f"{path} is damaged: {error}.", "Export the model again.") from error
    if manifest.fingerprint != stated:
        raise DiffcleanError(f"{path} was changed: its fingerprint does not match.", "Export the model again.")
    return manifest


def _ports(entries: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(entry["name"], entry["dtype"], tuple(entry["shape"])) for entry in entries)
