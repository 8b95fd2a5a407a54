"""Reads the headers of a tar one after another with bounded memory. No member is ever unpacked to the disk.

Python's `tarfile` trusts headers about the length of names and keeps a list of all members. The tars that are read here
may come from anyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
_LONGEST_NAME = 2**20
"""Bytes of an extended header."""
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "pipe",
    b"S": "sparse file",
}
_PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=]+)=")


class TarError(Exception):
    """The rest of a tar cannot be read; the text says why."""


class NoEndMark(TarError):
    """A tar ends after a member without an end mark."""


@dataclass(frozen=True, slots=True)
class Member:
    """The content of one header.

    Attributes:
        name: the path of the member, as the header gives it.
        kind: "file", "link", "device", "pipe", "folder", "sparse file" or "unknown thing".
        offset: the position of its first byte in the tar.
        size: the size in bytes.
    """

    name: bytes
    kind: str
    offset: int
    size: int


def members(file: BinaryIO, length: int) -> Iterator[Member]:
    """Yield every member in the order of the tar.

    Args:
        file: a seekable file at its beginning.
        length: the length of the tar in bytes.

    Raises:
        TarError: the tar is damaged or cut off. The members before the damage were yielded.
    """
    position = 0
    extended: dict[bytes, bytes] = {}
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if position > length:
            raise TarError(f"it is cut off at byte {length:,}, behind the last member")
        if not header:
            raise NoEndMark("it ends without an end mark")
        if header.count(0) == BLOCK:
            return
        member = _member(header, position, extended)
        end = member.offset + -(-member.size // BLOCK) * BLOCK
        if member.offset + member.size > length:
            raise TarError(f"it is cut off at byte {length:,}, inside {member.name[:100].decode('utf-8', 'replace')!r}")
        kind = header[156:157]
        if kind in b"xLKgX" and kind:
            extended |= _extended(kind, member, file)
        else:
            if kind == b"S":
                end = _after_sparse(file, header, position, member.size)
            yield member
            extended = {}
        position = end


def _member(header: bytes, position: int, extended: dict[bytes, bytes]) -> Member:
    if len(header) < BLOCK:
        raise TarError(f"it is cut off at byte {position + len(header):,}, inside a header")
    plain = sum(header) - sum(header[148:156]) + 8 * 32
    if _number(header[148:156], position) != plain:
        raise TarError(f"its header at byte {position:,} is damaged")
    name = header[:100].split(b"\0", 1)[0]
    if header[257:262] == b"ustar" and header[262:263] == b"\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    size = _number(header[124:136], position)
    kind = _KINDS.get(header[156:157], "unknown thing")
    if header[156:157] not in b"xLKgX":
        name = extended.get(b"path", name)
        if b"size" in extended:
            size = _decimal(extended[b"size"], position)
        if any(key.startswith(b"GNU.sparse") for key in extended):
            kind = "sparse file"
        if kind in ("link", "device", "pipe", "folder"):
            size = 0
        if kind == "file" and name.endswith(b"/"):
            kind = "folder"
    return Member(name, kind, position + BLOCK, size)


def _extended(kind: bytes, member: Member, file: BinaryIO) -> dict[bytes, bytes]:
    """Return what an extended header says about the next member."""
    if member.size > _LONGEST_NAME:
        raise TarError(f"it has a header of {member.size:,} bytes (at most {_LONGEST_NAME:,} are read)")
    file.seek(member.offset)
    content = file.read(member.size)
    if kind == b"L":
        return {b"path": content.split(b"\0", 1)[0]}
    return dict(_pax(content, member.offset)) if kind in b"xX" else {}


def _pax(content: bytes, position: int) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content) and content[at]:
        found = _PAX_RECORD.match(content, at)
        end = at + int(found[1]) if found else 0
        if found is None or end <= found.end() or end > len(content):
            raise TarError(f"its extended header at byte {position:,} is damaged")
        yield found[2], content[found.end() : end - 1]
        at = end


def _after_sparse(file: BinaryIO, header: bytes, position: int, size: int) -> int:
    """Return where a sparse file of the old GNU form ends: blocks with its map may precede its bytes."""
    blocks, more = 1, header[482]
    while more:
        file.seek(position + blocks * BLOCK)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError(f"it is cut off at byte {position + blocks * BLOCK + len(block):,}, inside a header")
        blocks, more = blocks + 1, block[504]
    return position + blocks * BLOCK + -(-size // BLOCK) * BLOCK


def _number(field: bytes, position: int) -> int:
    """Parse a number: binary if the first bit is set, otherwise octal."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value >= 2**62:
            raise TarError(f"its header at byte {position:,} is damaged")
        return value
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise TarError(f"its header at byte {position:,} is damaged") from None


def _decimal(text: bytes, position: int) -> int:
    if not text.isdigit() or len(text) > 18:
        raise TarError(f"its extended header before byte {position:,} is damaged")
    return int(text)
