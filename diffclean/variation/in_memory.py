"""Makes variations of images in memory, with the same pipeline that makes those of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.item import Item
from diffclean.data.manifest import Row, Status
from diffclean.data.pixels import Pixels
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError
from diffclean.variation.pipeline import Slot, Stages, stream
from diffclean.variation.settings import Opened
from diffclean.variation.work import Job, Work

_WORKERS = 4


class Held:
    """Pictures in memory that act as a source, and as the sink for their variations.

    The pictures pass through lossless files in memory. They are therefore processed by the same code as files on disk,
    and give the same bytes.

    Args:
        pictures: (H, W, 3) uint8 each.
    """

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self.pictures = pictures
        self.written: dict[str, bytes] = {}

    def items(self) -> list[Item]:
        """One item for each picture; its key is its number."""
        return [Item(f"{number}.png", "", "") for number in range(len(self.pictures))]

    def name(self, item: Item) -> str:
        """The key itself."""
        return item.key

    def read(self, item: Item) -> bytes:
        """A picture as the bytes of a file."""
        return encode(self.pictures[number_of(item.key)])

    def write(self, key: str, data: bytes) -> None:
        """Keep a variation in memory."""
        self.written[key] = data


def number_of(key: str) -> int:
    """The number of a picture, taken from its key."""
    return int(key.removesuffix(".png"))


def vary(pictures: Sequence[Pixels], seeds: Sequence[int], opened: Opened) -> list[Pixels]:
    """Make one variation of each picture.

    Args:
        pictures: (H, W, 3) uint8 each, of any size.
        seeds: one seed for each picture, unsigned 64 bit.
        opened: the engine and the settings.

    Returns:
        (H, W, 3) uint8 each.

    Raises:
        DiffcleanError: a picture cannot be used, or the engine gave values that are not finite.
    """
    held, settings = Held(pictures), opened.settings
    manifest = opened.engine.manifest
    # The work on one image uses only `read` of a source and `write` of a sink.
    source, sink = cast("Source", held), cast("Sink", held)
    work = Work(source, sink, settings, manifest.image_size, manifest.fingerprint)
    rows: dict[int, Row] = {}

    def prepare(job: Job) -> list[Slot | Row]:
        seed = seeds[number_of(job[0].key)]
        return [
            replace(entry, row=replace(entry.row, seed=seed)) if isinstance(entry, Slot) else entry
            for entry in work.prepare(job)
        ]

    def commit(done: Sequence[Row]) -> None:
        rows.update((number_of(row.key), row) for row in done)

    jobs: list[Job] = [(item, [0]) for item in held.items()]
    assert settings.batch is not None
    stream(jobs, Stages(prepare, opened.sampler(), opened.fallback, commit), settings.batch, _WORKERS)
    if failed := [(number, row.error) for number, row in sorted(rows.items()) if row.status is not Status.OK]:
        number, why = failed[0]
        raise DiffcleanError(
            f"{len(failed)} of {len(pictures)} images could not be regenerated. Image {number}: {why}."
        )
    return [decode(held.written[rows[number].output]) for number in range(len(pictures))]
