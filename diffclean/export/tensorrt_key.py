"""What decides a TensorRT engine, written beside it: a wrong one is never run, and the reason is told in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffclean.data.atomic import WriteError, make_folders, write_whole
from diffclean.errors import DiffcleanError, UsageError
from diffclean.export.manifest import sha256_of

FORMAT = 1
PORTABLE_FROM = (8, 0)
"""An engine without targets runs from this compute capability on (what TensorRT-RTX builds unless told otherwise)."""

Arch = tuple[int, int]
"""A compute capability: (8, 9) for Ada Lovelace."""


def arch_text(arch: Sequence[Arch]) -> str:
    """`8.6, 8.9`; for none `8.0 and newer`."""
    return ", ".join(f"{major}.{minor}" for major, minor in arch) or f"{PORTABLE_FROM[0]}.{PORTABLE_FROM[1]} and newer"


def parse_arch(text: str) -> tuple[Arch, ...]:
    """`8.6,12.0` -> ((8, 6), (12, 0)), each once and in order.

    Raises:
        UsageError: anything else.
    """
    try:
        pairs = [part.strip().split(".") for part in text.split(",")]
        return tuple(sorted({(int(major), int(minor)) for major, minor in pairs}))
    except ValueError:
        raise UsageError(
            f"{text!r} is not a list of GPU architectures.", "Give compute capabilities, like 8.6 or 8.6,8.9,12.0."
        ) from None


@dataclass(frozen=True)
class Profile:
    """Batch sizes that an engine accepts, and the one it is tuned for. With all three equal it is static."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UsageError(
                f"The batch sizes {self.minimum}:{self.optimum}:{self.maximum} are no profile.",
                "Give minimum:optimum:maximum, rising and from 1 on, like 1:8:16; or one number.",
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        """`1:8:16`, or `8` for a static one.

        Raises:
            UsageError: anything else, or sizes that do not rise.
        """
        parts = text.split(":")
        if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"{text!r} is no profile of batch sizes.", "Give minimum:optimum:maximum, or one number.")
        sizes = [int(part) for part in parts] * (3 // len(parts))
        return cls(*sizes)

    @property
    def static(self) -> bool:
        """Whether it accepts one batch size only."""
        return self.minimum == self.maximum

    def both(self) -> tuple[Profile, ...]:
        """A static profile at the optimum, then this one: the usual batch gets kernels for its very shape."""
        return (self,) if self.static else (Profile(self.optimum, self.optimum, self.optimum), self)

    def __contains__(self, batch: int) -> bool:
        return self.minimum <= batch <= self.maximum

    def __str__(self) -> str:
        return str(self.optimum) if self.static else f"{self.minimum}:{self.optimum}:{self.maximum}"


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
    except WriteError:
        for path in (engine, key_path(engine)):
            path.unlink(missing_ok=True)
        raise


def _recorded(engine: Path) -> tuple[EngineKey, str]:
    path = key_path(engine)
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return EngineKey.from_json(content["key"]), str(content["sha256"])
    except FileNotFoundError:
        raise DiffcleanError(f"{engine.name} has no key beside it ({path.name}).") from None
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
