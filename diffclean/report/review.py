"""The data of a review: a list of suspects, and pictures of the images on it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from diffclean.data.atomic import contained
from diffclean.data.manifest import manifest_name
from diffclean.data.places import place_of
from diffclean.data.registry import is_there
from diffclean.data.suspects import SUSPECTS_FILE, read_list
from diffclean.errors import DiffcleanError
from diffclean.report.facts import REPORT_FILE, read_facts
from diffclean.report.pictures import Album, Thumbnail
from diffclean.report.reviewed_list import ReviewedList
from diffclean.report.variation_run import variations_of

SIDE = 224
"""Longer side of a picture in the review, in pixels."""
_PICTURES = 2_000
"""Pictures that are remembered: at `pictures.LIMIT_BYTES` each, at most 24 MB."""


@dataclass(frozen=True)
class Places:
    """The places of the list and the images.

    Attributes:
        list: the file of the list.
        data: the data set.
        variations: an output folder of `variate`. None: the originals are shown alone.
    """

    list: Path
    data: str
    variations: Path | None = None


def places_of(where: Path, data: Path | None = None, variations: Path | None = None) -> Places:
    """Find the list and the images to review.

    Args:
        where: a folder that `clean` wrote, a folder that holds `suspects.json`, or the file of a list.
        data: the data set. None: it is searched for.
        variations: the variations of the data. None: they are searched for.

    Raises:
        DiffcleanError: there is no list, or the data set is not known.
    """
    if not (where / REPORT_FILE).is_file():
        path = where / SUSPECTS_FILE if where.is_dir() else where
        return Places(path, str(data) if data else _source_of(path), variations)
    folders = read_facts(where).folders
    if not folders.suspects:
        raise DiffcleanError(f"The run in {where} has no list of suspects, so there is nothing to review.")
    found = str(data) if data else folders.data.found(where)
    if found is None:
        raise DiffcleanError(f"The data set of {where} is no longer at {folders.data.path}.", "Name it: --data DATA")
    return Places(contained(where, folders.suspects), found, variations or _finished(folders.variations.found(where)))


def _finished(run: str | None) -> Path | None:
    """Return an output folder of `variate` if its manifest exists, else None: missing variations are not an error."""
    return Path(run) if run and (place_of(run) / manifest_name()).is_file() else None


def _source_of(path: Path) -> str:
    """Find the data set from which a list was made: the path in the list, seen from here or from the list's folder."""
    source = read_list(path).source
    for place in (source, str(path.parent / source)):
        if source and ("://" in place or is_there(place)):
            return place
    said = f"It says {source}, which is not there" if source else "It does not say where they are"
    raise DiffcleanError(f"The images of {path} cannot be found. {said}.", "Name the data set: --data DATA")


class Pictures:
    """Small pictures of the reviewed images. They are made on request, and the last ones are cached.

    Only images on the list can be requested, and only by their number: no path comes from outside.

    Args:
        places: the places of the images and variations.
        listed: the list.
    """

    def __init__(self, places: Places, listed: ReviewedList) -> None:
        self._listed = listed
        keys = [row.key for row in listed.rows()]
        self._variation_of = variations_of(places.variations, keys) if places.variations else {}
        self._originals = Album.of_data(places.data, keys)
        outputs = self._variation_of.values()
        self._variations = Album.of_run(str(places.variations), outputs) if outputs else None
        self._made: OrderedDict[tuple[str, int], Thumbnail | str] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of pictures that exist: originals, and perhaps variations."""
        return ("original", "variation") if self._variations else ("original",)

    def get(self, kind: str, row: int) -> Thumbnail | str:
        """Return a picture, or the reason why there is none.

        Args:
            kind: one of `kinds`.
            row: the number of the image in `ReviewedList.rows`.

        Raises:
            IndexError: there is no such row.
        """
        with self._lock:
            if (kind, row) in self._made:
                self._made.move_to_end((kind, row))
                return self._made[kind, row]
        made = self._make(kind, self._listed.key(row))
        with self._lock:
            self._made[kind, row] = made
            while len(self._made) > _PICTURES:
                self._made.popitem(last=False)
        return made

    def _make(self, kind: str, key: str) -> Thumbnail | str:
        if kind == "original":
            return self._originals.thumbnail(key, SIDE)
        if self._variations is None or key not in self._variation_of:
            return "there is no variation"
        return self._variations.thumbnail(self._variation_of[key], SIDE)
