"""List a source once, and compare it with what an earlier run did."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from threading import Event
from typing import TypeVar

from diffclean.data.item import Item, ItemError
from diffclean.data.journal import Journal
from diffclean.data.keys import key_bytes
from diffclean.data.manifest import Row, Status
from diffclean.data.shard import Shard
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.data.spool import Spool
from diffclean.errors import DiffcleanError, Interrupted

_T = TypeVar("_T")
_AT_ONCE = 1024
_SHOWN = 3


class Survey:
    """Every image of a source, in a list on disk.

    Args:
        source: the source; it is listed once, immediately.
        shard: the shard whose images `items` returns.

    Attributes:
        images: the number of images in the source, over all shards.
        count: the number of images in the shard.
        class_to_idx: the number of each label.

    Raises:
        DiffcleanError: the source cannot be listed or holds no image, or it is not clear where its labels are.
    """

    def __init__(self, source: Source, shard: Shard | None = None) -> None:
        self._shard, self._name = shard or Shard(), source.name
        self._all = Spool()
        self.count = 0
        for part in source.parts():
            for item in source.stream(part):
                self._all.append([item.key, item.where, item.label, item.problem, item.stamp])
                self.count += self._shard.takes(item.key)
        self.images = len(self._all)
        self.class_to_idx = dict(source.class_to_idx)

    def items(self) -> Iterator[Item]:
        """The images of the shard, sorted."""
        return (Item(*values) for values in self._all if self._shard.takes(values[0]))

    @property
    def names(self) -> Iterable[str]:
        """What all images are called in a folder (`Source.name`); may be iterated again and again."""
        return self.named(self._name)

    def named(self, name: Callable[[Item], str]) -> Iterable[str]:
        """A name for each image of the source; may be iterated again and again."""
        return _Names(self._all, name)


@dataclass(frozen=True)
class _Names:
    spool: Spool
    name: Callable[[Item], str]

    def __iter__(self) -> Iterator[str]:
        return (self.name(Item(*values)) for values in self.spool)


@dataclass
class Change:
    """One way in which the source or the output differs from the journal.

    Attributes:
        images: the number of images.
        examples: the first few keys.
    """

    images: int = 0
    examples: list[str] = field(default_factory=list)

    def note(self, key: str) -> None:
        """Count one more image."""
        self.images += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(key)

    def __str__(self) -> str:
        """`2 (cat/a.jpg, cat/b.jpg)`, or `20 (cat/a.jpg, cat/b.jpg, cat/c.jpg ...)`."""
        more = " ..." if self.images > len(self.examples) else ""
        return f"{self.images} ({', '.join(self.examples)}{more})"


class Comparison:
    """The remaining work, found by comparing the source, the journal and the sink.

    A variation is kept if its last attempt succeeded, the original has the bytes that it was made from, and the sink
    holds a plain file of the size that was written. A variation that was filtered is not made again as long as the
    original has the same bytes, because it would be filtered again. Originals are compared by their stamps. If a stamp
    differs or was never recorded, the bytes of the original are hashed.

    Args:
        survey: the survey of the source.
        journal: the journal of earlier runs.
        source: the source, from which originals are read to hash them.
        sink: the sink, in which variations are looked up.
        variations: the number of variations of each image.
        verify: whether to hash all originals and variations.
        stop: an event that is checked before each file is hashed.

    Attributes:
        kept: the number of variations that are kept.
        filtered: the number of variations that were filtered, and would be again.
        jobs: `[key, where, label, problem, stamp, [variants]]` for what is missing.
        recorded: the number of images for which an earlier run made or filtered a variation.
        same: how many of these have originals that exist and have the same bytes.
        replaced: originals that have other bytes now, or can no longer be read.
        gone: originals that no longer exist.
        damaged: variations that changed since they were written: cut, overwritten, replaced by a link, or missing.

    Raises:
        Interrupted: `stop` was set.
    """

    def __init__(
        self,
        survey: Survey,
        journal: Journal,
        source: Source,
        sink: Sink,
        variations: int,
        verify: bool = False,
        stop: Event | None = None,
    ) -> None:
        self._source, self._sink, self._verify, self._stop = source, sink, verify, stop
        self.kept = self.filtered = self.recorded = self.same = 0
        self.jobs, self._stale, self._stamps = Spool(), Spool(), Spool()
        self.replaced, self.gone, self.damaged = Change(), Change(), Change()
        for item, rows in side_by_side(survey.items(), journal.latest()):
            self.recorded += any(row.status is not Status.FAILED for row in rows)
            if item is None:
                self._lost(rows)
            elif missing := self._missing(item, rows, variations):
                self.jobs.append([item.key, item.where, item.label, item.problem, item.stamp, missing])

    def pending(self) -> Iterator[tuple[Item, list[int]]]:
        """Each image of which something is missing, and the variants that are missing."""
        for *values, missing in self.jobs:
            yield Item(*values), missing

    def apply(self, journal: Journal) -> None:
        """Remove variations that no longer count, and record this and the new stamps in the journal.

        Raises:
            WriteError: a file cannot be removed, or the journal cannot be written.
        """
        for stale in _some(self._stale):
            self._sink.remove(*(output for _, _, output, _ in stale if output))
            self._sink.sync()
            journal.forget((key, variant, why) for key, variant, _, why in stale)
        for stamps in _some(self._stamps):
            journal.stamp(dict(stamps))

    def _lost(self, rows: list[Row]) -> None:
        self.gone.note(rows[0].key)
        for row in rows:
            self._drop(row, "the original is gone")

    def _missing(self, item: Item, rows: list[Row], variations: int) -> list[int]:
        """The variants that must be made."""
        settled = [row for row in rows if row.status is not Status.FAILED and row.variant < variations]
        if settled and not self._is_same(item, settled[0]):
            self.replaced.note(item.key)
            for row in rows:
                self._drop(row, "the original was replaced")
            settled = []
        self.same += bool(settled)
        made = [row for row in settled if row.status is Status.OK]
        self.filtered += len(settled) - len(made)
        whole = [row for row in made if self._is_whole(row)]
        if len(whole) < len(made):
            self.damaged.note(item.key)
            for row in made:
                if row not in whole:
                    self._drop(row, "the variation was not as it was written")
        self.kept += len(whole)
        done = {row.variant for row in settled if row.status is Status.FILTERED or row in whole}
        return [variant for variant in range(variations) if variant not in done]

    def _is_same(self, item: Item, row: Row) -> bool:
        """Whether the original has the bytes that a variation was made from."""
        stamped = bool(item.stamp) and item.stamp == row.source_stamp
        if row.source_label != item.label:
            return False  # of archives: a label is stored beside the image, and can be mended there
        if not row.source_sha256 or (stamped and not self._verify):
            return True
        self._check_stop()
        try:
            if hashlib.sha256(self._source.read(item)).hexdigest() != row.source_sha256:
                return False
        except ItemError:
            return False
        if item.stamp and not stamped:
            self._stamps.append([item.key, item.stamp])
        return True

    def _is_whole(self, row: Row) -> bool:
        """Whether the sink holds a variation as it was written, as far as this is checked."""
        size = self._sink.size(row.output)
        if size is None or (row.output_bytes and size != row.output_bytes):
            return False
        # Journals of earlier versions have no sizes; without a size, only the hash can show a change.
        if not row.output_sha256 or (row.output_bytes and not self._verify):
            return True
        self._check_stop()
        try:
            return hashlib.sha256(self._sink.read(row.output)).hexdigest() == row.output_sha256
        except ItemError:
            return False

    def _drop(self, row: Row, why: str) -> None:
        self._stale.append([row.key, row.variant, row.output, why])

    def _check_stop(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise Interrupted(
                "Stopped during the comparison with the earlier run.", "To continue, type the same command again."
            )


def check_same_data(found: Comparison, before: str, now: str, where: str) -> None:
    """Refuse a source at another place than before that has none of the images of the run.

    Raises:
        DiffcleanError: the source does not belong to the run; this protects all variations from a mistyped source.
    """
    if found.recorded and not found.same and before not in ("", now):
        raise DiffcleanError(
            f"{where} holds variations of {before}; none of its {found.recorded} images is in {now}.",
            "Name another output folder (`out`), or give the source with which the run was started.",
        )


def side_by_side(items: Iterable[Item], rows: Iterable[Row]) -> Iterator[tuple[Item | None, list[Row]]]:
    """Each image with the rows of its key, both in order; None for rows of an image that is not there."""
    groups = ((key_bytes(key), list(group)) for key, group in groupby(rows, lambda row: row.key))
    waiting = next(groups, None)
    for item in items:
        key = key_bytes(item.key)
        while waiting is not None and waiting[0] < key:
            yield None, waiting[1]
            waiting = next(groups, None)
        if waiting is not None and waiting[0] == key:
            yield item, waiting[1]
            waiting = next(groups, None)
        else:
            yield item, []
    while waiting is not None:
        yield None, waiting[1]
        waiting = next(groups, None)


def _some(values: Iterable[_T]) -> Iterator[list[_T]]:
    """Lists of about a thousand values."""
    rest = iter(values)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
