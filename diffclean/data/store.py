"""A bucket: list, read, write and remove objects. Every other module works with buckets through `Store`.

Objects appear whole: a store shows an object only when all of it has arrived. Throttled and failed requests are
repeated with growing pauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, BinaryIO, TypeVar

from diffclean.data.address import Address
from diffclean.data.bucket_access import library, opened_bucket
from diffclean.data.bucket_errors import ChangedError, MissingError, explained

PART_BYTES = 8 * 2**20
"""Larger objects are read in parts of this size, several at a time."""
_AT_ONCE = 1000
_PARALLEL = 16
_SEEN_S, _MOST_SEEN = 10.0, 4096

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Found:
    """An object.

    Attributes:
        name: its name in the bucket.
        size: in bytes.
        tag: the ETag, which changes when the object is replaced; its date if the store has no ETags.
        version: its version, by which some stores know it in conditions; `""`: it has none.
    """

    name: str
    size: int
    tag: str
    version: str = ""

    @property
    def stamp(self) -> str:
        """Changes when the object is replaced."""
        return f"{self.size}:{self.tag}"


class Store:
    """One bucket. It can be used from several threads.

    Every method raises a `StoreError` if the bucket cannot be reached or does not permit what is asked.

    Args:
        address: an address in the bucket.
    """

    def __init__(self, address: Address) -> None:
        self.address = Address(address.scheme, address.bucket)
        self._seen: dict[str, tuple[float, Found | None]] = {}

    def below(self, folder: str) -> Iterator[list[Found]]:
        """All objects below a folder (`""`: all of the bucket), about a thousand at a time, in the store's order."""
        obstore = library()
        chunks = self._call("list", folder, lambda: obstore.list(self._bucket, folder or None, chunk_size=_AT_ONCE))
        while True:
            chunk = self._call("list", folder, lambda: next(chunks, None))
            if chunk is None:
                return
            yield [_found(meta) for meta in chunk]

    def within(self, folder: str) -> tuple[list[str], list[Found]]:
        """The names of the folders that lie directly in a folder, and the objects."""
        obstore = library()
        found = self._call("list", folder, lambda: obstore.list_with_delimiter(self._bucket, folder or None))
        return list(found["common_prefixes"]), [_found(meta) for meta in found["objects"]]

    def head(self, name: str) -> Found | None:
        """An object without its content; None if there is none."""
        obstore = library()
        try:
            return self._call("read", name, lambda: _found(obstore.head(self._bucket, name)))
        except MissingError:
            return None

    def seen(self, name: str) -> Found | None:
        """The same, asked at most once in a few seconds; what this object writes or removes is known at once."""
        now = time.monotonic()
        asked, found = self._seen.get(name, (0.0, None))
        if not asked or now - asked > _SEEN_S:
            found = self.head(name)
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen[name] = now, found
        return found

    def get(self, name: str, size: int | None = None, tag: str = "") -> bytes:
        """The content of an object.

        Args:
            name: of the object.
            size: its size if known, so that a large one is read in parts.
            tag: the tag that it must still have; `""`: any.

        Raises:
            MissingError: there is no such object.
            ChangedError: it has another tag.
        """
        return self._get(name, tag) if size is None or size <= PART_BYTES else self.range(name, 0, size, tag)

    def range(self, name: str, start: int, size: int, tag: str = "") -> bytes:
        """Some bytes of an object, fewer where it ends; many are read in parts, several at a time. Raises as `get`."""
        if size <= PART_BYTES:
            return self._get(name, tag, range=(start, start + size)) if size else b""
        begins = range(start, start + size, PART_BYTES)
        with ThreadPoolExecutor(min(_PARALLEL, len(begins))) as pool:
            ends = (min(begin + PART_BYTES, start + size) for begin in begins)
            return b"".join(pool.map(lambda part: self._get(name, tag, range=part), zip(begins, ends, strict=True)))

    def put(self, name: str, data: bytes | BinaryIO) -> None:
        """Write or replace an object. A file is read from its beginning and sent in parts."""
        obstore = library()

        def send() -> None:
            if not isinstance(data, bytes):
                data.seek(0)
            obstore.put(self._bucket, name, data)

        self._call("write", name, send)
        self._seen.pop(name, None)

    def create(self, name: str, data: bytes) -> Found | None:
        """Write an object unless it exists; of two callers, one writes it. Returns None if it exists."""
        return self._conditional(name, data, "create")

    def replace(self, there: Found, data: bytes) -> Found | None:
        """Replace an object if it is still the one that was found. Returns None if it is not."""
        version = {"version": there.version} if there.version else {}
        return self._conditional(there.name, data, {"e_tag": there.tag} | version)

    def delete(self, *names: str) -> None:
        """Remove objects; those that do not exist are ignored."""
        obstore = library()
        for start in range(0, len(names), _AT_ONCE):
            some = list(names[start : start + _AT_ONCE])
            for name in some:
                self._seen.pop(name, None)
            try:
                self._call("write", some[0], partial(obstore.delete, self._bucket, some))
            except MissingError:
                if len(some) > 1:
                    for name in some:
                        self.delete(name)

    @cached_property
    def _bucket(self) -> Any:
        return opened_bucket(self.address)

    def _get(self, name: str, tag: str, **options: Any) -> bytes:
        obstore = library()
        if tag.startswith(('"', "W/")):  # another one is a date
            options["if_match"] = tag
        return self._call("read", name, lambda: bytes(obstore.get(self._bucket, name, options=options).bytes()))

    def _conditional(self, name: str, data: bytes, mode: Any) -> Found | None:
        """Write under a condition. A reply that was lost may hide a success, so in doubt the content decides."""
        obstore = library()

        def send() -> Found:
            put = obstore.put(self._bucket, name, data, mode=mode, use_multipart=False)
            return Found(name, len(data), put["e_tag"] or "", put["version"] or "")

        try:
            return self._call("write", name, send)
        except (ChangedError, MissingError):
            now = self.head(name)
            try:
                written = now is not None and now.size == len(data) and self._get(name, now.tag) == data
            except (ChangedError, MissingError):
                return None
            return now if written else None

    def _call(self, doing: str, name: str, work: Callable[[], _T]) -> _T:
        """Do something; the library repeats what fails and resumes replies that break off, see `bucket_access`."""
        try:
            return work()
        except Exception as error:
            problem = explained(error, doing, self.address, name)
            if problem is None:
                raise
            raise problem from None  # the original may quote credentials


def _found(meta: Any) -> Found:
    tag = meta["e_tag"] or meta["last_modified"].isoformat()
    if tag.startswith("0x"):  # Azure lists its tags without the quotation marks that it gives them elsewhere
        tag = f'"{tag}"'
    return Found(meta["path"], meta["size"], tag, meta["version"] or "")
