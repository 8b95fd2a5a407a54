"""The key of a TensorRT engine, which is written beside it.

An engine with a wrong key is never run, and the reason is logged.
"""

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
    """Everything that determines an engine.

    Attributes:
        flavour: "tensorrt" or "tensorrt-rtx".
        library_version: the version of that library; an engine works with one version only.
        onnx_sha256: the hash of the graph, see `onnx_digest`.
        precision: the precision that the graph computes in. The graph contains it already; it is here for the reader.
        arch: the compute capabilities that the engine was built for; empty for the library's portable default.
        gpu: the GPU that it was tuned on; "" if the library does not tune.
        profiles: the profiles, in the order in which the engine holds them.
        flags: the builder flags that were set, and with a minus those that were cleared.
        memory_limit_bytes: the scratch memory that a layer may use; None stands for no limit.
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
        """Whether the engine was built for GPUs of this compute capability."""
        return capability in self.arch if self.arch else capability >= PORTABLE_FROM

    def differences(self, wanted: EngineKey) -> list[str]:
        """The differences between this engine and the wanted one, as phrases."""
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
        """The key as a readable table for `json.dumps`."""
        arch = [f"{major}.{minor}" for major, minor in self.arch]
        return {**asdict(self), "arch": arch, "profiles": [str(each) for each in self.profiles]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> EngineKey:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError, DiffcleanError: the content is not a key.
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
    """The sha256 of a graph with its weights.

    This is the hash of the file, or if there are files of weights beside it, the hash of all their hashes.

    Raises:
        DiffcleanError: the file is not an ONNX model, or a file of weights is missing.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise DiffcleanError(f"There is no ONNX graph {path}.", "Export the model again.") from None
    except Exception as error:  # protobuf's DecodeError is not public
        raise DiffcleanError(f"{path} is damaged: {error}", "Export the model again.") from error
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    beside = sorted({entry.value for entry in entries if entry.key == "location"})
    if missing := [name for name in beside if not (path.parent / name).is_file()]:
        raise DiffcleanError(f"{path} is incomplete: its weights {missing[0]} are missing.", "Export the model again.")
    digests = [sha256_of(path), *(sha256_of(path.parent / name) for name in beside)]
    return digests[0] if not beside else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def engine_file(folder: Path, flavour: str) -> Path:
    """The path of a component's engine, which is beside its ONNX graph."""
    return folder / f"model.{flavour}.engine"


def key_path(engine: Path) -> Path:
    """The path of an engine's key."""
    return engine.with_suffix(".json")


def write_engine(engine: Path, plan: Any, key: EngineKey) -> None:
    """Write an engine and its key, both whole or neither.

    Args:
        engine: the file to write; its folder is created.
        plan: the bytes of the engine in an object with a buffer, which may be gigabytes and is not copied.
        key: the key of the engine.

    Raises:
        WriteError: the disk is full or read-only, or there is no permission.
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
    """Read the key that was written beside an engine.

    Raises:
        DiffcleanError: it is missing or damaged.
    """
    return _recorded(engine)[0]


def why_not(engine: Path, wanted: EngineKey) -> str | None:
    """Why an engine on disk is not the wanted one; None if it is. The whole file is read and hashed."""
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
