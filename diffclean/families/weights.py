"""Weights as safetensors: what comes as a pickle is read without running anything in it, and saved on.

A `.bin` or `.pt` file is a pickle; `torch.load(weights_only=True)` reads tensors and plain containers from it and
refuses the rest. The safetensors copy lies in the cache, beside links to the model's other files.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import shutil
import tempfile
from pathlib import Path

from diffclean.environment import cache_dir
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)

_STEMS = ("diffusion_pytorch_model", "pytorch_model", "model")
_SAVED_AS = {"pytorch_model": "model"}


def with_safetensors(directory: Path, parts: tuple[str, ...]) -> Path:
    """`directory` itself where every part has safetensors, or a copy in the cache that has.

    Args:
        directory: a model directory.
        parts: as `Family.parts`.

    Raises:
        DiffcleanError: a pickle that holds more than tensors, or weights in a form that is not known.
    """
    folders = sorted({directory / pattern.split("/")[0] for pattern in parts if "/" in pattern})
    pickles = [pickled for folder in folders if (pickled := _pickle_alone(folder)) is not None]
    if not pickles:
        return directory
    listing = "\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in pickles)
    place = cache_dir() / "models" / f"{directory.name}-{hashlib.sha256(listing.encode()).hexdigest()[:16]}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        try:
            _copy(directory, folders, temporary, pickles)
            temporary.chmod(0o755)
            if not place.is_dir():
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return place


def _pickle_alone(folder: Path) -> Path | None:
    """The pickled weights of a part that has no safetensors."""
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return None
    for stem in _STEMS:
        if (path := folder / f"{stem}.bin").is_file():
            return path
    if others := [
        path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".msgpack")
    ]:
        raise DiffcleanError(
            f"The weights in {folder} are in a form that is not read: {', '.join(sorted(others)[:3])}.",
            "Load the model with diffusers where you trust it, and save it with save_pretrained(folder).",
        )
    return None


def _copy(directory: Path, folders: list[Path], target: Path, pickles: list[Path]) -> None:
    import torch
    from safetensors.torch import save_file

    for path in [directory / "model_index.json", *(file for folder in folders for file in folder.glob("*"))]:
        if path.is_file() and path not in pickles:
            copy = target / path.relative_to(directory)
            copy.parent.mkdir(exist_ok=True)
            copy.symlink_to(path.resolve())
    for path in pickles:
        log.info("Reading %s without running anything in it, and keeping it as safetensors.", path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise DiffcleanError(
                f"{path} is refused: it holds more than tensors, or is damaged.",
                "Reading it would run code from the file. Where you trust it, load it with diffusers yourself and save "
                "it with save_pretrained(folder), which writes safetensors.",
            ) from error
        if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise DiffcleanError(f"{path} is refused: it is no table of tensors.")
        saved = target / path.relative_to(directory).with_name(f"{_SAVED_AS.get(path.stem, path.stem)}.safetensors")
        saved.parent.mkdir(exist_ok=True)
        # Cloned: tensors that share memory, as pickles may have them, cannot be saved as safetensors.
        save_file({name: value.clone().contiguous() for name, value in state.items()}, saved)
