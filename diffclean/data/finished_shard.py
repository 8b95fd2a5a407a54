"""The finished shards of a run, and their rows together, as `merge` needs them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from diffclean.data.bucket_path import AnyFile
from diffclean.data.manifest import Row, Status, row_place
from diffclean.data.records import Records
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError


@dataclass(frozen=True)
class ShardFolder:
    """A folder that shards wrote to.

    Attributes:
        place: the folder, on disk or in a bucket.
        records: its records.
    """

    place: AnyFile
    records: Records


@dataclass(frozen=True)
class FinishedShard:
    """A finished shard.

    Attributes:
        shard: the shard.
        folder: the folder that it wrote to.
        rows: returns its rows from the beginning, sorted.
    """

    shard: Shard
    folder: ShardFolder
    rows: Callable[[], Iterator[Row]]

    def made(self) -> Iterator[Row]:
        """The last row of each variation that was made."""
        return (row for _, row in _last((self, row) for row in self.rows()))


def joined(shards: Sequence[FinishedShard]) -> Iterator[tuple[FinishedShard, Row]]:
    """The rows of all shards, sorted.

    Raises:
        DiffcleanError: two shards have the same image.
    """
    streams = [map(partial(_with, shard), shard.rows()) for shard in shards]
    last: tuple[FinishedShard, Row] | None = None
    for shard, row in heapq.merge(*streams, key=lambda pair: row_place(pair[1])):
        if last is not None and last[0] is not shard and row_place(last[1]) == row_place(row):
            names = " and in ".join(sorted((last[0].shard.name, shard.shard.name)))
            raise DiffcleanError(
                f"{row.key} (variant {row.variant}) is in shard {names}.",
                "An image belongs to one shard only: run the shards again in new folders.",
            )
        last = shard, row
        yield last


def all_made(shards: Sequence[FinishedShard]) -> Iterator[tuple[FinishedShard, Row]]:
    """The last row of each variation that was made, of all shards; raises as `joined` does."""
    return _last(joined(shards))


def _last(rows: Iterable[tuple[FinishedShard, Row]]) -> Iterator[tuple[FinishedShard, Row]]:
    for _, group in groupby(rows, lambda pair: row_place(pair[1])):
        *_, (shard, row) = group
        if row.status is Status.OK:
            yield shard, row


def _with(shard: FinishedShard, row: Row) -> tuple[FinishedShard, Row]:
    return shard, row
