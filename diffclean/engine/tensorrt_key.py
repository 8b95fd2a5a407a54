"""What decides a TensorRT engine, written beside it: a wrong one is never run, and the reason is told in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.hashes import sha256_of
from diffclean.data.json_file import read_json
from diffclean.engine.tensorrt_targets import PORTABLE_FROM, Arch, Profile, arch_text, parse_arch
from diffclean.errors import DiffcleanError

FORMAT = 1


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides what an engine is.

    Attributes:
        flavour: "tensorrt" or "tensorrt-rtx".
        library_version: of that library; engines do not carry over between versions.
        onnx_sha256: see `onnx_digest`.
        precision: what the graph computes in. It is in the graph already and stands here for the reader.
        arch: compute capabilities it was built for; empty: the library's portable default.
        gpu: the GPU it was tuned on, "" where the library does not tune on one.
        profiles: in the order in which the engine holds them.
        flags: builder flags that were set, and with a minus those that were cleared.
        memory_limit_bytes: scratch memory that a layer may use; None: no limit.
    """

    flavour: str
    library_version: str
    onnx_sha256: str
    precision: str
    arch: tuple[Arch, ...]
    gpu: str
    profiles: tuple[Profile, ...]
    flags: tuple[str, ...] = ()
    memory_limit_bytes: int | None = None

    def runs_on(self, capability: Arch) -> bool:
        """Whether it was built for GPUs of this compute capability."""
        return capability in self.arch if self.arch else capability >= PORTABLE_FROM

    def differences(self, wanted: EngineKey) -> list[str]:
        """What this engine is and the wanted one is not, a phrase a difference."""
        phrases: dict[str, tuple[str, Callable[[Any], object]]] = {
            "flavour": ("compiled by {}", str),
            "library_version": ("compiled by version {}", str),
            "onnx_sha256": ("compiled from the graph {}…", lambda digest: digest[:12]),
            "precision": ("computing in {}", str),
            "arch": ("compiled for GPUs of compute capability {}", arch_text),
            "gpu": ("tuned on {}", lambda name: name or "no GPU"),
            "profiles": ("made for batches of {}", lambda profiles: ", ".join(map(str, profiles))),
            "flags": ("compiled with {}", lambda flags: " ".join(flags) or "no flags"),
            "memory_limit_bytes": ("limited to {} bytes of scratch memory", lambda limit: limit or "all"),
        }
        return [
            f"it was {phrase.format(text(getattr(self, name)))}, wanted is {text(getattr(wanted, name))}"
            for name, (phrase, text) in phrases.items()
            if getattr(self, name) != getattr(wanted, name)
        ]

    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`, and to be read by people."""
        arch = [f"{major}.{minor}" for major, minor in self.arch]
        return {**asdict(self), "arch": arch, "profiles": [str(each) for each in self.profiles]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EngineKey:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError, DiffcleanError: it is not one.
        """
        return cls(
            **{
                **content,
                "arch": parse_arch(",".join(content["arch"])) if content["arch"] else (),
                "profiles": tuple(Profile.parse(each) for each in content["profiles"]),
                "flags": tuple(content["flags"]),
            }
        )


def onnx_digest(path: Path) -> str:
    """Sha256 of a graph with its weights: of the file, or of all their hashes where weights lie in files beside it.

    Raises:
        DiffcleanError: the file is no ONNX model, or a file of weights is missing.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise DiffcleanError(f"There is no ONNX graph {path}.", "Export the model again.") from None
    except Exception as error:  # protobuf's DecodeError is of no public type
        raise DiffcleanError(f"{path} is damaged: {error}", "Export the model again.") from error
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    beside = sorted({entry.value for entry in entries if entry.key == "location"})
    if missing := [name for name in beside if not (path.parent / name).is_file()]:
        raise DiffcleanError(f"{path} is incomplete: its weights {missing[0]} are missing.", "Export the model again.")
    digests = [sha256_of(path), *(sha256_of(path.parent / name) for name in beside)]
    return digests[0] if not beside else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def engine_file(folder: Path, flavour: str) -> Path:
    """Where the engine of a component lies: beside its ONNX graph."""
    return folder / f"model.{flavour}.engine"


def key_path(engine: Path) -> Path:
    """Where an engine's key lies."""
    return engine.with_suffix(".json")


def write_engine(engine: Path, plan: Any, key: EngineKey) -> None:
    """Write an engine and its key, both whole or neither.

    Args:
        engine: the file; its folder is made.
        plan: the bytes, anything with a buffer (it may be gigabytes: it is not copied).
        key: what decided them.

    Raises:
        WriteError: disk full, read-only, no permission.
    """
    content = {"format": FORMAT, "sha256": hashlib.sha256(plan).hexdigest(), "key": key.to_json()}
    make_folders(engine.parent)
    try:
        write_whole(engine, plan)
        write_whole(key_path(engine), (json.dumps(content, indent=2) + "\n").encode())
    except BaseException:
        for path in (engine, key_path(engine)):
            with suppress(OSError):
                path.unlink()
        raise


def _recorded(engine: Path) -> tuple[EngineKey, str]:
    path = key_path(engine)
    if not path.exists():
        raise DiffcleanError(f"{engine.name} has no key beside it ({path.name}).")
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return EngineKey.from_json(content["key"]), str(content["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, DiffcleanError) as error:
        raise DiffcleanError(f"{path} is damaged: {error!r}.") from error


def load_key(engine: Path) -> EngineKey:
    """The key that was written beside an engine.

    Raises:
        DiffcleanError: it is missing or damaged.
    """
    return _recorded(engine)[0]


def why_not(engine: Path, wanted: EngineKey) -> str | None:
    """Why an engine on disk is not the wanted one, in words; None when it is. Reads and hashes the whole file."""
    if not engine.is_file():
        return "it is missing"
    try:
        key, digest = _recorded(engine)
    except DiffcleanError as error:
        return error.message.rstrip(".")
    if different := key.differences(wanted):
        return "; ".join(different)
    if (found := sha256_of(engine)) != digest:
        return f"its bytes were changed: sha256 {found[:12]}…, on record is {digest[:12]}…"
    return None
