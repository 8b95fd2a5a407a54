"""Which files are a network's weights, and how they become safetensors where they are not.

A folder may hold the same weights several times. The plain ones are read, else the ones in half precision; of each,
safetensors before a pickle. Others, like `non_ema`, are other weights and never taken.

A `.bin` file is a pickle; `torch.load(weights_only=True)` reads tensors and plain containers from it and refuses the
rest. The safetensors copy lies in the cache, beside links to the model's other files.
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
from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import DamagedError, check_archive, check_tensors, few_steps, is_compressed

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_VARIANTS = (None, "fp16", "bf16")
_STEMS = {".safetensors": ("diffusion_pytorch_model", "model"), ".bin": ("diffusion_pytorch_model", "pytorch_model")}
_OTHERS = (".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".pb", ".xml")
_READING_FAILS = (pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError,
                  MemoryError, RuntimeError, TypeError, ValueError)  # fmt: skip
"""What torch raises where bytes are not what they should be."""
NOT_CONFIGURATION = (*_STEMS, ".index.json", *_OTHERS)
"""How names of files end that are weights, or belong to them."""


@dataclass(frozen=True)
class Weights:
    """The files of one network's weights.

    Attributes:
        files: names in its folder; of sharded weights the index comes first.
        variant: None, "fp16" or "bf16".
        pickled: they are no safetensors.
    """

    files: tuple[str, ...]
    variant: str | None
    pickled: bool


def weights_among(names: Iterable[str]) -> Weights | None:
    """The weights to read among the names of a part's files, or None where there are none."""
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
    return None


def weights_in(folder: Path) -> Weights | None:
    """`weights_among` of a folder's files.

    Raises:
        DiffcleanError: there are weights, but in a form that is not read.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    weights = weights_among(names)
    if weights is None and (others := sorted(name for name in names if name.endswith((*_STEMS, *_OTHERS)))):
        raise DiffcleanError(
            f"The weights in {folder} are in a form that is not read: {', '.join(others[:3])}.",
            "Load the model with diffusers where you trust it, and save it with save_pretrained(folder).",
        )
    if weights is not None and weights.variant is not None:
        log.info("%s has its weights in %s alone; they are widened to fp32.", folder, weights.variant)
    return weights


def with_safetensors(directory: Path, parts: tuple[str, ...]) -> Path:
    """`directory` itself where every part has safetensors, or a copy in the cache that has.

    Args:
        directory: a model directory.
        parts: as `Family.parts`.

    Raises:
        DiffcleanError: a pickle that holds more than tensors, or weights in a form that is not known.
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
    """Link what is no weights, and save the pickles' tensors as safetensors."""
    from safetensors.torch import save_file

    for path in [directory / "model_index.json", *(file for folder in folders for file in folder.glob("*"))]:
        if path.is_file() and path not in pickles:
            copy = target / path.relative_to(directory)
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path.resolve())
    for path in pickles:
        log.info("Reading %s without running anything in it, and keeping it as safetensors.", path)
        # transformers calls its pickles otherwise than its safetensors, diffusers does not.
        name = path.relative_to(directory).with_name(re.sub(r"^pytorch_model", "model", path.stem) + ".safetensors")
        (target / name).parent.mkdir(exist_ok=True)
        save_file(_tensors_of(path), target / name, metadata={"format": "pt"})


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors in a pickle, mapped from the file: what is large is never in memory as a whole.

    Raises:
        DiffcleanError: it holds anything else, or is damaged.
    """
    import torch

    try:
        # Files of before torch 1.6 are no archives and cannot be mapped; nor can what is compressed.
        if check_archive(path):
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=not is_compressed(path))
        else:
            with path.open("rb") as file:
                state = torch.load(few_steps(file, path), map_location="cpu", weights_only=True)
    except (DamagedError, *_READING_FAILS) as error:
        raise DiffcleanError(
            f"{path} is refused: it holds more than tensors, or is damaged.",
            "Reading it would run code from the file. Where you trust it, load it with diffusers yourself and save it "
            "with save_pretrained(folder), which writes safetensors.",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DiffcleanError(f"{path} is refused: it is no table of tensors.")
    check_tensors(path, state)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in state.items():
        # Tensors that share memory, as pickles may have them, cannot be saved as safetensors.
        storage = value.untyped_storage().data_ptr()
        tensors[name] = value.clone() if storage in seen else value.contiguous()
        seen.add(storage)
    return tensors
