"""The work on one image before and after the sampler: reading and decoding, then encoding and writing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from diffclean.data.atomic import NameWriteError
from diffclean.data.decode import decoded
from diffclean.data.encode import encode
from diffclean.data.in_flight import IN_FLIGHT
from diffclean.data.item import Item, ItemError
from diffclean.data.keys import NAME_LIMIT_BYTES, is_too_long
from diffclean.data.manifest import Row, Status
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.families.seeds import image_seed
from diffclean.variation.color import ColorStatistics, statistics, transferred
from diffclean.variation.labels import KEEP, labeller_for
from diffclean.variation.picture import Slot
from diffclean.variation.settings import Settings
from diffclean.variation.windows import Layout, from_canvas, layout, to_canvas

Job = tuple[Item, list[int]]
"""An image, and the variants of it that are wanted."""

_BYTES_A_PIXEL = 9
"""Of an output that is being written, in RGB: the picture, what its colours are computed in, and its encoding."""


@dataclass
class Work:
    """The work before and after the sampler. It can be used from several threads.

    Attributes:
        source: the source.
        sink: the sink.
        settings: the resolved settings.
        image_size: S, the side of the model's square in pixels.
        fingerprint: the fingerprint of the engine, for the rows.
    """

    source: Source
    sink: Sink
    settings: Settings
    image_size: int
    fingerprint: str

    def __post_init__(self) -> None:
        self.labeller = labeller_for(self.settings.labels)
        self._limits = self.settings.limits

    def prepare(self, job: Job) -> list[Slot | Row]:
        """Read and decode one image; return a slot for each wanted variation, or a failed row for each."""
        item, variants = job
        label = item.label if self.settings.labels == KEEP else ""  # otherwise the labeller sets it later
        name = self.source.name(item)
        detail = self.settings.detail
        assert detail is not None
        rows = [
            Row(
                item.key,
                variant,
                self.settings.name_of(name, variant),
                label,
                source_label=item.label,
                seed=image_seed(self.settings.seed, item.key, variant),
                engine=self.fingerprint,
                source_stamp=item.stamp,
            )
            for variant in variants
        ]
        digest = ""
        try:
            if is_too_long(rows[-1].output):
                raise ItemError(f"its variation would have a name of more than {NAME_LIMIT_BYTES} bytes")
            data = self.source.read(item)
            digest = hashlib.sha256(data).hexdigest()
            with decoded(data, max(self.image_size, detail), self._limits) as (image, (width, height)):
                plan = layout(width, height, self.image_size, detail, self.settings.fit)
                canvas = to_canvas(image, plan)
        except ItemError as error:
            reason = error.message
            return [replace(row, output="", status=Status.FAILED, error=reason, source_sha256=digest) for row in rows]
        colors = statistics(canvas, self.settings.color_transfer)
        slots: list[Slot | Row] = []
        for row in rows:
            row = replace(row, source_sha256=digest, source_width=width, source_height=height)
            slots.append(Slot(row, canvas, partial(self._finish, row, plan, colors), plan.own, plan.windows))
        return slots

    def _finish(self, row: Row, plan: Layout, colors: ColorStatistics | None, pixels: NDArray[np.uint8]) -> Row:
        """Encode and write the result of the sampler, a whole canvas, (H, W, 3) uint8."""
        width, height = plan.size(self.settings.size)
        with IN_FLIGHT.room(_BYTES_A_PIXEL * width * height):
            pixels = transferred(pixels, colors, self.settings.color_transfer)
            pixels = from_canvas(pixels, plan, self.settings.size)
            row = self.labeller.labelled(row, pixels)
            try:
                encoded = encode(pixels, self.settings.format)
                self.sink.write(row.output, encoded)
            except (ItemError, NameWriteError) as error:
                return replace(row, status=Status.FAILED, error=error.message)
        done = replace(row, width=pixels.shape[1], height=pixels.shape[0], output_bytes=len(encoded))
        return replace(done, output_sha256=hashlib.sha256(encoded).hexdigest())
