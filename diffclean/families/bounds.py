"""Checks of what a file of weights declares, before memory is used for it: a small file may declare many gigabytes."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from diffclean.data.json_file import json_of
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    from torch import Tensor

_SPARE_BYTES = 64 * 2**20
"""The number of bytes that any file may unfold to, however small it is."""
_HEADER_BYTES = 16 * 2**20
"""The largest header of a safetensors file that is read; it has room for a hundred thousand tensors."""
_MAKES_BYTES = (b"cbuiltins\nbytearray\n", b"c__builtin__\nbytearray\n")
"""The opcodes with which a pickle creates a bytearray. A pickle can create one of any length from a single number."""
_PICKLE_BYTES = 64 * 2**20
_STEPS = 1_000_000
"""Of a pickle, which is read step by step in Python, without the tensors' own bytes: some forty a tensor."""


class DamagedError(DiffcleanError):
    """A file is damaged, or is not of the kind that its name says."""


def allowed_bytes(path: Path) -> int:
    """The number of bytes that a file's content may take in memory."""
    return 2 * path.stat().st_size + _SPARE_BYTES


def check_archive(path: Path) -> list[str]:
    """Refuse a file of `torch.save` that would unfold to far more than its own size.

    Args:
        path: a zip archive, or a pickle as torch before 1.6 wrote it.

    Returns:
        The names of the files in the archive; empty for a pickle.

    Raises:
        DiffcleanError: the file is damaged, or declares more than it can hold.
    """
    _check_plain(path)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            head = file.read(_PICKLE_BYTES)
        if head.startswith(b"PK"):
            raise DamagedError(f"{path} is damaged: it begins like an archive but is not a complete one.")
        _check_pickle(path, head)
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if (whole := sum(entry.file_size for entry in entries)) > allowed_bytes(path):
                raise DiffcleanError(
                    f"{path} is refused: it has {path.stat().st_size:,} bytes and unfolds to {whole:,}.",
                    "torch.save does not compress files. If you trust the file, load it yourself and save it again.",
                )
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    if entry.file_size > 4 * _STEPS:
                        raise _too_long(path)
                    _check_pickle(path, archive.read(entry))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise DamagedError(f"{path} is damaged or is not a torch file: {error}.") from error
    return [entry.filename for entry in entries]


def _check_plain(path: Path) -> None:
    if path.exists() and not path.is_file():  # opening a pipe of that name would wait for ever
        raise DamagedError(f"{path} is not a plain file.")


def few_steps(file: BinaryIO, path: Path) -> BinaryIO:
    """A file for `torch.load` that ends a pickle of before torch 1.6 after too many steps, each of which reads.

    Whatever reads it then gets a DiffcleanError.
    """
    return cast(BinaryIO, _FewSteps(file, path))


class _FewSteps:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._left = file, path, _STEPS
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto  # type: ignore[attr-defined]

    def read(self, size: int = -1) -> bytes:
        """See `io.BufferedReader`."""
        self._count()
        return self._file.read(size)

    def readline(self) -> bytes:
        """See `io.BufferedReader`."""
        self._count()
        return self._file.readline()

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _too_long(self._path)


def _too_long(path: Path) -> DiffcleanError:
    return DiffcleanError(
        f"{path} is refused: beside its tensors it holds more than {_STEPS:,} numbers, names and the like.",
        "Save the weights alone: torch.save(model.state_dict(), 'weights.pt').",
    )


def is_compressed(path: Path) -> bool:
    """Whether a file in a zip archive is compressed; the archive cannot be memory-mapped then."""
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _check_pickle(path: Path, data: bytes) -> None:
    if any(mark in data for mark in _MAKES_BYTES):
        raise DiffcleanError(f"{path} is refused: it holds a bytearray, which weights do not need.")


def safetensors_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file.

    Returns:
        A table from the name of a tensor to its dtype, shape and data_offsets, with `__metadata__` beside them.

    Raises:
        DiffcleanError: the file is damaged, or its header is larger than any model needs.
    """
    _check_plain(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _HEADER_BYTES:
                raise ValueError(f"its header would have {length:,} bytes")
            header = json_of(file.read(length))
        if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
            raise ValueError("its header is not a table of tensors")
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged or is not a safetensors file: {error}.") from error
    return header


def numbers_in(header: Mapping[str, Any]) -> int:
    """Count the numbers in all tensors of a safetensors header.

    Raises:
        ValueError: a tensor has no valid shape.
    """
    shapes = [entry.get("shape") for name, entry in header.items() if name != "__metadata__"]
    if not all(isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape) for shape in shapes):
        raise ValueError("a tensor has no shape")
    return sum(math.prod(shape) for shape in shapes)


def check_tensors(path: Path, content: Mapping[Any, Any]) -> None:
    """Refuse tensors that are not plain dense tables of numbers, or that are larger than their file.

    Args:
        path: the file that the tensors come from.
        content: the tensors, which may also be in tables within the table.

    Raises:
        DiffcleanError: a tensor is refused; the message names the first one.
    """
    import torch

    whole, tables, seen = 0, [content], {id(content)}
    while tables:
        table = tables.pop()
        for name, value in table.items():
            if isinstance(value, Mapping) and id(value) not in seen:  # a pickle may hold a table a thousand times
                seen.add(id(value))
                tables.append(value)
            if not isinstance(value, torch.Tensor):
                continue
            if (kind := next((word for holds, word in _kinds(value) if holds), None)) is not None:
                raise DiffcleanError(
                    f"{path} is refused: its tensor {name} is {kind}; plain dense tensors were expected.",
                    "Save dense tensors in floating point: tensor.dequantize(), tensor.to_dense().",
                )
            whole += value.numel() * value.element_size()
    if whole > allowed_bytes(path):
        raise DiffcleanError(
            f"{path} is refused: it has {path.stat().st_size:,} bytes, but its tensors would take {whole:,}."
        )


def _kinds(tensor: Any) -> list[tuple[bool, str]]:
    import torch

    return [
        (tensor.is_nested, "nested"),
        (tensor.layout != torch.strided, f"sparse ({tensor.layout})"),
        (tensor.is_quantized, f"quantised ({tensor.dtype})"),
        (tensor.device.type != "cpu", f"on the device {tensor.device}"),
        (tensor.is_complex(), f"complex ({tensor.dtype})"),
        (type(tensor) not in (torch.Tensor, torch.nn.Parameter), f"a {type(tensor).__name__}"),
    ]


def check_finite(where: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        DiffcleanError: names the model and the first tensor that holds NaN or an infinity.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or (finite := tensor.isfinite()).all():
            continue
        count = tensor.numel() - int(finite.sum())
        raise DiffcleanError(
            f"{where} is refused: {count:,} of the {tensor.numel():,} numbers of its tensor {name} are not finite (NaN "
            "or infinite), so its results would mean nothing.",
            "If its training diverged or was cut off, use an earlier state of it.",
        )
