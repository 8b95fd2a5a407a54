"""Finds the files with the weights of a network, and converts them to safetensors if they are not.

A folder may hold the same weights several times. The plain ones are read, or else those in half precision; of each,
safetensors are preferred to a pickle. Others, such as `non_ema`, are different weights and are never used.

A `.bin` file is a pickle. `torch.load(weights_only=True)` reads tensors and plain containers from it and refuses
everything else. The safetensors copy is kept in the cache, beside links to the other files of the model.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.data.atomic import temporary_folder
from diffclean.data.json_file import read_json
from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import DamagedError, check_archive, check_tensors, few_steps, is_compressed

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_VARIANTS = (None, "fp16", "bf16")
_STEMS = {".safetensors": ("diffusion_pytorch_model", "model"), ".bin": ("diffusion_pytorch_model", "pytorch_model")}
_OTHERS = (".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".pb", ".xml")
_INDEX_BYTES = 64 * 2**20
_READING_FAILS = (pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError,
                  MemoryError, RuntimeError, TypeError, ValueError)  # fmt: skip
"""The errors that torch raises if the bytes of a file are not what they should be."""
NOT_CONFIGURATION = (*_STEMS, ".index.json", *_OTHERS)
"""The endings of file names that are weights, or that belong to weights."""


@dataclass(frozen=True)
class Weights:
    """The files with the weights of one network.

    Attributes:
        files: the names in the folder; for sharded weights the index comes first.
        variant: None, "fp16" or "bf16".
        pickled: whether they are a pickle and not safetensors.
    """

    files: tuple[str, ...]
    variant: str | None
    pickled: bool


def weights_among(names: Iterable[str]) -> Weights | None:
    """Choose the weights to read among the names of a part's files; None if there are none."""
    names = set(names)
    for variant in _VARIANTS:
        dot = f".{variant}" if variant else ""
        for suffix, stems in _STEMS.items():
            for stem in stems:
                if (single := f"{stem}{dot}{suffix}") in names:
                    return Weights((single,), variant, suffix != ".safetensors")
                index = f"{stem}{suffix}.index{dot}.json"
                shard = re.compile(rf"{re.escape(stem + dot)}-\d+-of-\d+{re.escape(suffix)}")
                if suffix == ".safetensors" and index in names:
                    return Weights((index, *sorted(filter(shard.fullmatch, names))), variant, False)
    adapters = [name for name in names if name.startswith("ip-adapter") and name.endswith(".safetensors")]
    return Weights((adapters[0],), None, False) if len(adapters) == 1 else None


def weights_in(folder: Path) -> Weights | None:
    """Choose the weights to read in a folder, see `weights_among`.

    Raises:
        DiffcleanError: there are weights, but in a form that is not read, or an index of shards names other files than
            the shards beside it.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    weights = weights_among(names)
    if weights is None and (others := sorted(name for name in names if name.endswith((*_STEMS, *_OTHERS)))):
        raise DiffcleanError(
            f"The weights in {folder} are in a form that diffclean does not read: {', '.join(others[:3])}.",
            "If you trust the model, load it with diffusers and save it with save_pretrained(folder).",
        )
    if weights is not None and weights.variant is not None:
        log.info("%s has its weights in %s only; they are widened to fp32.", folder, weights.variant)
    if weights is not None and weights.files[0].endswith(".json"):
        _check_index(folder / weights.files[0], set(weights.files))
    return weights


def _check_index(path: Path, shards: set[str]) -> None:
    """Refuse an index that names other files than the shards, since a library would open whatever it names."""
    content = read_json(path, _INDEX_BYTES)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict):
        raise DiffcleanError(f"{path} is damaged: it has no weight_map.")
    if strange := [str(name) for name in named.values() if not isinstance(name, str) or name not in shards]:
        raise DiffcleanError(
            f"The weights in {path.parent} cannot be read: {path.name} names {strange[0]:.200}, which is not one of "
            "the shards beside it.",
            "They may be incomplete. Copy them again.",
        )


def with_safetensors(directory: Path, parts: tuple[str, ...]) -> Path:
    """Return `directory` itself if every part has safetensors, or else a copy in the cache that has them.

    Args:
        directory: a model directory.
        parts: glob patterns, see `Family.parts`.

    Raises:
        DiffcleanError: a pickle holds more than tensors, or the weights are in an unknown form.
    """
    folders = sorted({directory / pattern.split("/")[0] for pattern in parts if "/" in pattern})
    found = [(folder, weights_in(folder)) for folder in folders]
    pickles = [folder / weights.files[0] for folder, weights in found if weights is not None and weights.pickled]
    if not pickles:
        return directory
    listing = "\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in pickles)
    place = cache_dir() / "models" / f"{directory.name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(place) as temporary:
            _copy(directory, folders, temporary, pickles)
            if not place.is_dir():
                temporary.rename(place)
    return place


def _copy(directory: Path, folders: list[Path], target: Path, pickles: list[Path]) -> None:
    """Link the files that are not pickled weights, and save the tensors of the pickles as safetensors."""
    from safetensors.torch import save_file

    for path in [directory / "model_index.json", *(file for folder in folders for file in folder.glob("*"))]:
        if path.is_file() and path not in pickles:
            copy = target / path.relative_to(directory)
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path.resolve())
    for path in pickles:
        log.info("Reading %s without running anything in it, and keeping it as safetensors.", path)
        # In transformers the names of pickles and safetensors differ, in diffusers they do not.
        name = path.relative_to(directory).with_name(re.sub(r"^pytorch_model", "model", path.stem) + ".safetensors")
        (target / name).parent.mkdir(exist_ok=True)
        save_file(_tensors_of(path), target / name, metadata={"format": "pt"})


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a pickle, memory-mapped where possible, so that a large file is never in memory as a whole.

    Raises:
        DiffcleanError: the file holds anything else, or is damaged.
    """
    import torch

    try:
        # Files from before torch 1.6 are not archives and cannot be mapped, nor can compressed files.
        if check_archive(path):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=not is_compressed(path))
        else:
            with path.open("rb") as file:
                state = torch.load(few_steps(file, path), map_location="cpu", weights_only=True)
    except (DamagedError, *_READING_FAILS) as error:
        raise DiffcleanError(
            f"{path} is refused: it holds more than tensors, or is damaged.",
            "Reading it would run code from the file. If you trust it, load it with diffusers yourself and save it "
            "with save_pretrained(folder), which writes safetensors.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DiffcleanError(f"{path} is refused: it is not a table of tensors.")
    check_tensors(path, state)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        # In pickles tensors may share memory; such tensors cannot be saved as safetensors.
        storage = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if storage in seen else value.contiguous()
        seen.add(storage)
    return tensors
