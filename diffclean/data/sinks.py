"""Where variations go: the `Sink` Protocol. `registry.open_sink` opens one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from diffclean.data.item import Item
from diffclean.data.manifest import Row
from diffclean.data.records import Records
from diffclean.data.shard import Shard
from diffclean.data.sources import Description, Source


class Sink(Protocol):
    """A data set that is being written, in any order and from several threads, and the records of the run that does it.

    Attributes:
        records: where `run.json`, the journal, the manifest and the lock are.
    """

    records: Records

    @property
    def where(self) -> str:
        """What messages call it: as the user wrote it."""

    def for_shard(self, shard: Shard) -> Sink:
        """The same place, written by one shard among several."""

    def check_apart(self, source: Source) -> None:
        """Refuse a source that this sink lies in, or that lies in it; raises `DiffcleanError`."""

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        """Refuse, before any work, keys whose variations could not lie side by side here.

        Args:
            keys: of all images; may be iterated twice.
            variants: of each image.
            extension: of the files, without the dot.
            full_names: the originals' extensions stay in the names.

        Raises:
            NameCollisionError: names the first few.
        """

    def write(self, key: str, data: bytes) -> None:
        """Write one image, whole or not at all; one that is there is replaced. Raises `WriteError`."""

    def sync(self) -> None:
        """Return once every image written so far would outlive a power cut."""

    def size(self, key: str) -> int | None:
        """Bytes of the image that it holds under a key; None: it holds none, or something that it never wrote."""

    def read(self, key: str) -> bytes:
        """The bytes of an image that it holds; raises `ReadError`."""

    def remove(self, key: str) -> None:
        """Remove an image; one that is not there does no harm. Raises `WriteError`."""

    def finish(
        self,
        made: Callable[[], Iterable[tuple[Item, list[Row]]]],
        source: Source,
        class_to_idx: Mapping[str, int],
    ) -> None:
        """Bring what was written into its last form, once everything is there; called again it changes nothing.

        Args:
            made: gives each image with the last attempts at its variations, in the order of keys; may be asked twice.
            source: has what travels along with them.
            class_to_idx: of the output.

        Raises:
            DiffcleanError: it cannot be written, or what travels along not be read.
        """

    def describe(self) -> Description | None:
        """How another process opens it; None: it lives in this process alone."""
