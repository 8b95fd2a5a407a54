"""The quality gate (`variate --min-similarity`): variations that are too unlike their sources are made again.

A variation is compared when all its windows are made, before colours are transferred. If it is less similar to its
source than asked for, it is made again with another seed, which is derived from its own; after `RETRIES` repetitions it
is given up and listed as `filtered`, and nothing is written. All of this depends on the image, its seed and the engine
only, so the same images pass whatever the batch, and however the work was divided or resumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diffclean.data.manifest import Row, Status
from diffclean.variation.likeness import Likeness
from diffclean.variation.picture import Picture

RETRIES = 2
"""How often a variation is made again with another seed."""


@dataclass(frozen=True)
class Gate:
    """Decides about finished pictures.

    Attributes:
        least: the similarity that a variation must have, see `likeness`.
        likeness: compares a variation with its source.
        tell: called with the number of pictures that are to be made again, and the seconds that comparing took.
    """

    least: float
    likeness: Likeness
    tell: Callable[[int, float], None]

    def judge(self, pictures: Sequence[Picture]) -> tuple[list[Picture | Row], list[Picture]]:
        """Compare pictures of which all windows are made, and are finite.

        Returns:
            The pictures that pass and the rows of those that are given up, in order; and the pictures that are to be
            made in place of the others.
        """
        decided: list[Picture | Row] = []
        again: list[Picture] = []
        if not pictures:
            return decided, again
        started = time.monotonic()
        canvases = [picture.slot.canvas for picture in pictures]
        found = self.likeness.compare(canvases, [picture.whole for picture in pictures])
        seconds = time.monotonic() - started
        for picture, similarity in zip(pictures, found, strict=True):
            best = max((similarity, picture.seed), picture.best or (-math.inf, 0))
            if similarity >= self.least:
                decided.append(picture)
            elif picture.attempt < RETRIES:
                again.append(Picture(picture.slot, picture.attempt + 1, best))
            else:
                decided.append(_filtered(picture.slot.row, *best, self.least))
        self.tell(len(again), seconds)
        return decided, again


def _filtered(row: Row, similarity: float, seed: int, least: float) -> Row:
    """The row of a picture that is given up, with the greatest similarity and the seed that it was made with."""
    shown = math.floor(similarity * 1000) / 1000  # rounded down: it must not look as if it had passed
    error = (
        f"the most similar of {RETRIES + 1} variations has a similarity of {shown:.3f} to its source, and {least:g} "
        "was asked for"
    )
    return replace(row, output="", status=Status.FILTERED, error=error, seed=seed)
