"""Reads weights from untrusted files: tensors and plain values are read, and nothing in a file is ever executed."""

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
"""The first bytes of a file of torch.save: those of a zip archive, or of a pickle in old versions."""


class UnsafeFileError(DiffcleanError):
    """The file could only be read by trusting it: it holds code, or objects that are created by running code."""


def read_content(path: Path) -> dict[str, Any]:
    """The whole content of a `.safetensors` file, with its tensors under `state_dict`, or of a torch file.

    Raises:
        UnsafeFileError: the file could only be read by trusting it.
        DiffcleanError: the file is missing or damaged, declares more than it can hold, or holds something else.
    """
    if not path.is_file():
        raise DiffcleanError(f"There is no file {path}.")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    check_tensors(path, content)
    return content


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a file other than tensors, and its tensors, see `read_content` and `split`."""
    return split(read_content(path))


def split(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide the content of a file into everything but tensors, and its tensors.

    The tensors are those under `state_dict`, or the whole content if it has no such table.
    """
    state = content.get("state_dict")
    if isinstance(state, dict):
        return {name: value for name, value in content.items() if name != "state_dict"}, state
    return {name: value for name, value in content.items() if not isinstance(value, torch.Tensor)}, content


def _read_torch(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        if not file.read(4).startswith(_TORCH):
            raise DiffcleanError(
                f"{path} is not a torch file.",
                "Expected a torch file (.pt, .pth), a .safetensors file or an .onnx file, with that extension.",
            )
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
                "Convert them into plain Python values (float(x), x.tolist()), or save only the weights.",
            ) from error
        raise UnsafeFileError(
            f"{path} is refused: it holds more than tensors and plain values (a whole pickled model?), "
            f"and reading that would run code from the file ({reason_of(error)}).",
            "If you trust it, load it yourself and write it again with diffclean.classifiers.checkpoints.save.",
        ) from error
    except Exception as error:  # damaged bytes can raise any kind of exception
        raise DiffcleanError(f"{path} is damaged or is not a torch file: {reason_of(error)}.") from error
    if not isinstance(content, dict):
        raise DiffcleanError(f"{path} holds a {type(content).__name__}, not a classifier of diffclean.")
    return content


def _refuse_programs(path: Path, files: Iterable[str]) -> None:
    """Refuse TorchScript and torch.export archives: they are zip files too, and their loaders trust them."""
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
                raise ValueError("its metadata are not an object")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
            return {**about, "state_dict": tensors}
    except (SafetensorError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise DiffcleanError(f"{path} is damaged or is not a safetensors file: {reason_of(error)}.") from error


def reason_of(error: Exception) -> str:
    """What went wrong in one line, without torch's advice to load the file unsafely."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    found = text.partition(" was not an allowed global")[0].strip()
    return found.splitlines()[0].rstrip(".") if found else type(error).__name__


def listed(names: Iterable[object]) -> str:
    """The first few names, for a message."""
    every = [f"{name!s:.60}" for name in names]
    return "nothing" if not every else ", ".join(every[:4]) + (", ..." if len(every) > 4 else "")
