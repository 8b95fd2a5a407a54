"""`engine.json`: what an engine directory holds, and the proof that it still does.

The fingerprint is a hash of everything that decides an engine's output: the graphs' bytes, the scheduler, the
preprocessing, the model it came from, the tools that made it. Files are checked against their hashes before a runtime
sees them.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffclean.errors import DiffcleanError
from diffclean.families.base import Port

FORMAT = 2
OPSET = 20
"""Of the graphs."""
FILE_NAME = "engine.json"
SUMS_NAME = "SHA256SUMS.json"
"""In a model directory: the hashes that its files must have."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_below(directory: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `directory` that ends in one of `suffixes`, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def model_hashes(directory: Path) -> dict[str, str]:
    """`hashes_below` of what decides a model's output: its weights and configurations, not its card."""
    found = hashes_below(directory, (".safetensors", ".json"))
    return {name: digest for name, digest in found.items() if name != SUMS_NAME}


@dataclass(frozen=True)
class ComponentEntry:
    """One component of an engine: its signature (batch axis left out, dynamic) and its parity with torch."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    parity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineManifest:
    """The content of `engine.json`.

    Attributes:
        family: name of the family.
        source: model directory (`path`), the sha256 of each of its files (`files`), hub and revision where it has them.
        image_size: side of the square, in pixels.
        scheduler: diffusers' configuration of the noise schedule.
        components: by place.
        files: every file of the engine directory but this one -> sha256.
        tools: versions of what made it.
        options: what the engine was made as; `export.cache.ExportOptions`.
        compiled: forms for one runtime, as `export.compiled` describes them; they do not enter the fingerprint.
    """

    family: str
    source: dict[str, Any]
    image_size: int
    scheduler: dict[str, Any]
    components: dict[str, ComponentEntry]
    files: dict[str, str]
    tools: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    compiled: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @property
    def precision(self) -> str:
        """What the graphs compute in: fp32, fp16 or bf16."""
        return str(self.options.get("precision", "fp32"))

    @property
    def fingerprint(self) -> str:
        """Hex sha256 over all that decides the output; not over where the model lay, nor over measured parity."""
        content = asdict(self)
        content["source"].pop("path", None)
        content.pop("compiled")
        for component in content["components"].values():
            component.pop("parity")
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, directory: Path) -> None:
        """Write `engine.json` into `directory`."""
        content = {**asdict(self), "fingerprint": self.fingerprint}
        temporary = directory / f".{FILE_NAME}.{os.getpid()}.part"
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        temporary.replace(directory / FILE_NAME)


def read_manifest(directory: Path) -> EngineManifest:
    """Read `engine.json`.

    Raises:
        DiffcleanError: it is missing, of another format, or its content does not match its own fingerprint.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise DiffcleanError(f"{directory} is not an engine directory: {FILE_NAME} is missing.")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise DiffcleanError(
                f"{path} has format {content['format']}; this diffclean reads format {FORMAT}.",
                "Export the model again.",
            )
        stated = content.pop("fingerprint")
        content["components"] = {
            name: ComponentEntry(_ports(entry["inputs"]), _ports(entry["outputs"]), entry["parity"])
            for name, entry in content["components"].items()
        }
        manifest = EngineManifest(**content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DiffcleanError(f"{path} is damaged: {error!r}.", "Export the model again.") from error
    if manifest.fingerprint != stated:
        raise DiffcleanError(f"{path} was changed: its fingerprint does not match.", "Export the model again.")
    return manifest


def _ports(entries: list[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(Port(entry["name"], entry["dtype"], tuple(entry["shape"])) for entry in entries)


def damage(directory: Path, files: dict[str, str]) -> list[str]:
    """What differs between a directory and the hashes on record, a line a file; empty when nothing does."""
    found = []
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (actual := sha256_of(path)) != expected:
            found.append(f"{name} has sha256 {actual[:12]}…, on record is {expected[:12]}…")
    return found
