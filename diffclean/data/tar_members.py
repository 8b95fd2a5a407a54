"""The members of a WebDataset tar that is written: their names, and the members beside an image."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any

from diffclean.data.archive import Entry, Head
from diffclean.data.formats import is_taken


def member_name(name: str) -> str:
    """Return the key of a sample without dots, which begin an extension. No key has `%2E`, so the result is unique."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.replace('.', '%2E')}"


def are_numbers(head: Head) -> bool:
    """Whether every label is a number. `.cls` then holds the labels; else their numbers in `classes.json`."""
    return all(label.isascii() and label.isdigit() for label in head.class_to_idx)


def label_member(entry: Entry, as_it_is: bool) -> int | str:
    """Return the content of `.cls`: the label itself, where all labels are numbers, or its number."""
    return entry.label if entry.number is None or as_it_is else entry.number


def members_beside(about: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the members beside an image: bytes and `txt` are members, all other fields go into one `json`."""
    found: dict[str, bytes] = {}
    rest: dict[str, Any] = {}
    for name, value in about.items():
        if value is None:
            continue
        if isinstance(value, bytes) or (name in ("txt", "json") and isinstance(value, str)):
            found[_extension(name)] = value if isinstance(value, bytes) else value.encode()
        else:
            rest[name] = value
    if rest:
        name = "json" if "json" not in found else "fields.json"
        found[name] = json.dumps(rest, default=str, ensure_ascii=False).encode()
    return dict(sorted(found.items()))


def _extension(name: str) -> str:
    """Turn the name of a field into an extension that neither an image nor the label uses."""
    plain = re.sub(r"[^a-z0-9_.-]", "_", name.lower()).strip(".") or "field"
    return f"{plain}_" if is_taken(plain.rpartition(".")[2]) or plain == "cls" else plain


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> tuple[int, int]:
    """Add a plain member, and return where its bytes are."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
    end = tar.offset
    return end - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data)
