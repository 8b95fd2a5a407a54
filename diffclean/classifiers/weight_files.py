"""Weights from files that need not be trusted: tensors and plain values are read, nothing in them is ever executed."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from diffclean.data.json_file import json_of
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_archive, check_tensors, few_steps, safetensors_header

WAY_OUT = (
    "In the program that made it: torch.save(model.state_dict(), 'weights.pt'). Then:\n"
    "diffclean distill --teacher weights.pt --teacher-arch NAME --teacher-classes FILE"
)


_TORCH = (b"PK", b"\x80")
"""How a file of torch.save begins: a zip archive, or in old versions a pickle."""


class UnsafeFileError(DiffcleanError):
    """Reading the file would mean to trust it: it holds code, or objects that are made by running code."""


def read_content(path: Path) -> dict[str, Any]:
    """All that a `.safetensors` file, whose tensors are under `state_dict`, or else a file of torch holds.

    Raises:
        UnsafeFileError: it could only be read by trusting it.
        DiffcleanError: it is missing, damaged, declares more than it can hold, or holds something else.
    """
    if not path.is_file():
        raise DiffcleanError(f"There is no file {path}.")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    check_tensors(path, content)
    return content


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file tells beside tensors, and its tensors (or, where they lie under another name, all); see above."""
    return split(read_content(path))


def split(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file's content tells beside tensors, and its tensors: its `state_dict`, or all where it has none."""
    state = content.get("state_dict")
    if isinstance(state, dict):
        return {name: value for name, value in content.items() if name != "state_dict"}, state
    return {name: value for name, value in content.items() if not isinstance(value, torch.Tensor)}, content


def _read_torch(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if not file.read(4).startswith(_TORCH):
            raise DiffcleanError(f"{path} is no torch file.", "Expected .pt, .pth, .safetensors or .onnx, named so.")
    names = check_archive(path)
    _refuse_programs(path, names)
    try:
        with path.open("rb") as file:
            content: Any = torch.load(file if names else few_steps(file, path), map_location="cpu", weights_only=True)
    except DiffcleanError:
        raise
    except pickle.UnpicklingError as error:
        if "numpy" in str(error):
            raise UnsafeFileError(
                f"{path} is refused: it holds NumPy numbers or arrays beside its weights, such as the best accuracy so "
                f"far, and reading those would run code from the file ({reason_of(error)}).",
                "Turn them into plain ones (float(x), x.tolist()), or save the weights alone.",
            ) from error
        raise UnsafeFileError(
            f"{path} is refused: it holds more than tensors and plain values (a whole pickled model?), "
            f"and reading that would run code from the file ({reason_of(error)}).",
            "Where you trust it, load it yourself and write it again with diffclean.classifiers.checkpoints.save.",
        ) from error
    except Exception as error:  # damaged bytes raise whatever they like
        raise DiffcleanError(f"{path} is damaged or is no torch file: {reason_of(error)}.") from error
    if not isinstance(content, dict):
        raise DiffcleanError(f"{path} holds a {type(content).__name__}, not a classifier of diffclean.")
    return content


def _refuse_programs(path: Path, files: Iterable[str]) -> None:
    """TorchScript and torch.export archives are zip files too; their loaders trust them."""
    names = {name.partition("/")[2] for name in files}
    kind = ""
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        kind = "a TorchScript archive: a program"
    elif "archive_format" in names or any(
        name.startswith(("models/", "serialized_exported_program")) for name in names
    ):
        kind = "an archive of torch.export: a program"
    if kind:
        raise UnsafeFileError(f"{path} is refused: it is {kind}, whose loader trusts the file.", WAY_OUT)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    safetensors_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json_of((file.metadata() or {}).get("diffclean", "{}"))
            if not isinstance(about, dict):
                raise ValueError("its metadata are no object")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return {**about, "state_dict": tensors}
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise DiffcleanError(f"{path} is damaged or is no safetensors file: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """What went wrong in one line, without torch's advice to load it unsafely."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    found = text.partition(" was not an allowed global")[0].strip()
    return found.splitlines()[0].rstrip(".") if found else type(error).__name__


def listed(names: Iterable[object]) -> str:
    """The first few names."""
    every = [f"{name!s:.60}" for name in names]
    return "nothing" if not every else ", ".join(every[:4]) + (", ..." if len(every) > 4 else "")
