"""Hashes of files, and the comparison of a directory with the hashes on record."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_below(directory: Path, suffixes: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Relative POSIX path -> sha256 of every file below `directory` whose name ends in one of `suffixes`, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def short(value: Any) -> str:
    """A value for a message; a hash is shortened to its first digits."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def damage(directory: Path, files: dict[str, str]) -> list[str]:
    """How a directory differs from the hashes on record: one line per file, and none if nothing differs."""
    found = []
    for name, expected in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif (actual := sha256_of(path)) != expected:
            found.append(f"{name} has sha256 {short(actual)}, on record is {short(expected)}")
    return found


def is_inside(name: str) -> bool:
    """Whether a relative POSIX path stays inside its folder and is written in its normal form."""
    path = PurePosixPath(name)
    plain = "\\" not in name and "\0" not in name and str(path) == name and name not in ("", ".")
    return plain and not path.is_absolute() and ".." not in path.parts
