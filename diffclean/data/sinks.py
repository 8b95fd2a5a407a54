"""The `Sink` protocol: a place where variations are written. `registry.open_sink` opens one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from diffclean.data.item import Item
from diffclean.data.manifest import Row
from diffclean.data.records import Records
from diffclean.data.shard import Shard
from diffclean.data.sources import Description, Source

log = logging.getLogger(__name__)


class Sink(Protocol):
    """A data set that is being written, in any order and from several threads, with the records of its run.

    Attributes:
        records: the place of `run.json`, the journal, the manifest and the lock.
    """

    records: Records

    @property
    def where(self) -> str:
        """The name of the sink in messages, as the user wrote it."""

    def for_shard(self, shard: Shard) -> Sink:
        """The same place, for writing by one of several shards."""

    def check_apart(self, source: Source) -> None:
        """Refuse a source that contains this sink or lies in it; raises `DiffcleanError`."""

    def check_keys(self, keys: Iterable[str], variants: int, extension: str, full_names: bool = False) -> None:
        """Before any work, refuse keys whose variations could not be stored side by side here.

        Args:
            keys: the keys of all images; may be iterated twice.
            variants: the number of variations of each image.
            extension: the extension of the files, without the dot.
            full_names: whether names keep the extensions of the originals.

        Raises:
            NameCollisionError: names the first few collisions.
        """

    def write(self, key: str, data: bytes) -> None:
        """Write one image, whole or not at all; an existing one is replaced. Raises `WriteError`."""

    def sync(self) -> None:
        """Return when every image written so far is safe from a power cut."""

    def size(self, key: str) -> int | None:
        """The size in bytes of the image stored under a key.

        It is None if there is no image, or something that the sink never wrote.
        """

    def read(self, key: str) -> bytes:
        """The bytes of a stored image; raises `ReadError`."""

    def remove(self, *keys: str) -> None:
        """Remove images; those that do not exist are ignored. Raises `WriteError`."""

    def follow(self, made: Iterable[tuple[Item, list[Row]]], source: Source, class_to_idx: Mapping[str, int]) -> None:
        """Bring what is finished into its last form while the run goes on; `finish` does what is left.

        It is called in a thread of its own. A sink whose images lie as they should once they are written returns at
        once.

        Args:
            made: each image with the last attempts at its variations, in the order of keys. The iterator waits until
                the next image is finished, and raises if the run stops before that.
            source: as for `finish`.
            class_to_idx: as for `finish`.

        Raises:
            DiffcleanError: as for `finish`.
        """

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
        """What another process needs to open the sink, or None if the sink exists in this process only."""


def say_left_out(source: Source) -> None:
    """Warn of what travels along with images and has no place in a folder of images."""
    if names := source.fields.names:
        log.warning("A folder of images has no place for %s: left out.", ", ".join(names))
