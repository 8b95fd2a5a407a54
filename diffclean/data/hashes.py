"""Hashes of files, and what of a directory no longer matches those on record."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_below(directory: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `directory` that ends in one of `suffixes`, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def short(value: Any) -> str:
    """For a message; a hash is told by its beginning."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def damage(directory: Path, files: dict[str, str]) -> list[str]:
    """What differs between a directory and the hashes on record, a line a file; empty when nothing does."""
    found = []
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (actual := sha256_of(path)) != expected:
            found.append(f"{name} has sha256 {short(actual)}, on record is {short(expected)}")
    return found


def is_inside(name: str) -> bool:
    """Whether a relative POSIX path stays in its folder, and is spelled the plain way."""
    path = PurePosixPath(name)
    plain = "\\" not in name and "\0" not in name and str(path) == name and name not in ("", ".")
    return plain and not path.is_absolute() and ".." not in path.parts
