"""A source and a sink that are dictionaries: what the Protocols ask for, and nothing of a folder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from diffclean.data import classes
from diffclean.data.item import Item, ReadError
from diffclean.data.keys import key_bytes, label_of
from diffclean.data.passed_over import PassedOver
from diffclean.data.records import Log
from diffclean.data.shard import Shard
from diffclean.data.sources import Source


class MemorySource:
    """Parts of images: `{"part": {key: bytes}}`; no stamps, so that bytes alone tell what was replaced."""

    where = "memory"

    def __init__(self, parts: dict[str, dict[str, bytes]]) -> None:
        self._parts = parts
        self.listed = 0
        self.passed_over = PassedOver()

    def parts(self) -> Sequence[str]:
        return sorted(self._parts)

    def stream(self, part: str = "") -> Iterator[Item]:
        self.listed += 1
        for name in [part] if part else self.parts():
            for key in sorted(self._parts[name], key=key_bytes):
                yield Item(key, name, label_of(key))

    def items(self) -> list[Item]:
        return list(self.stream())

    def read(self, item: Item) -> bytes:
        try:
            return self._parts[item.where][item.key]
        except KeyError:
            raise ReadError("gone") from None

    @property
    def class_to_idx(self) -> dict[str, int]:
        return classes.class_to_idx(label_of(key) for part in self._parts.values() for key in part)

    def name(self, item: Item) -> str:
        return item.key

    def part_of(self, item: Item) -> str:
        return item.where

    def about(self, item: Item) -> dict[str, object]:
        return {}

    @property
    def fields(self) -> pa.Schema:
        return pa.schema([])

    def places(self) -> list[Path]:
        return []

    def describe(self) -> None:
        return None


class MemoryLog:
    """Bytes that grow."""

    where = "memory/log"

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def lines(self) -> Iterator[bytes]:
        return iter(io.BytesIO(bytes(self._content)))

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    def append(self, data: bytes) -> int:
        before = len(self._content)
        self._content += data
        return before

    def truncate(self, size: int) -> None:
        del self._content[size:]

    def close(self) -> None:
        pass


class MemoryRecords:
    """Named bytes."""

    where = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.logs: dict[str, bytearray] = {}

    def hold(self, owner: str) -> AbstractContextManager[object]:
        return nullcontext()

    def sweep(self, owner: str) -> None:
        pass

    def strangers(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    def write_new(self, name: str, data: bytes) -> bool:
        return self.files.setdefault(name, data) is data

    @contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        file = io.BytesIO()
        yield file
        self.files[name] = file.getvalue()

    def log(self, name: str, write: bool = True) -> Log:
        return MemoryLog(self.logs.setdefault(name, bytearray()))


class MemorySink:
    """Images by key; `synced` says which would outlive a power cut."""

    where = "memory"

    def __init__(self) -> None:
        self.records = MemoryRecords()
        self.images: dict[str, bytes] = {}
        self.synced: set[str] = set()

    def for_shard(self, shard: Shard) -> MemorySink:
        return self

    def check_apart(self, source: Source) -> None:
        pass

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        assert list(keys) == list(keys)  # may be asked twice

    def write(self, key: str, data: bytes) -> None:
        self.images[key] = data

    def sync(self) -> None:
        self.synced = set(self.images)

    def size(self, key: str) -> int | None:
        return len(self.images[key]) if key in self.images else None

    def read(self, key: str) -> bytes:
        return self.images[key]

    def remove(self, *keys: str) -> None:
        for key in keys:
            self.images.pop(key, None)

    def follow(self, made: Iterable[object], source: Source, class_to_idx: Mapping[str, int]) -> None:
        self.followed = list(made)

    def finish(self, made: object, source: Source, class_to_idx: Mapping[str, int]) -> None:
        self.finished = True

    def describe(self) -> None:
        return None


def digests(images: dict[str, bytes]) -> dict[str, str]:
    """What can be compared without printing pictures."""
    return {key: hashlib.sha256(data).hexdigest() for key, data in images.items()}
