"""Writes the cleaned data set: the kept images of the suspect data set, without copying them if the disk allows it."""

from __future__ import annotations

import csv
import fcntl
import io
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

from diffclean.data.address import is_address
from diffclean.data.atomic import contained, make_folders, write_error, write_whole
from diffclean.data.formats import extension_of
from diffclean.data.item import Item, ItemError
from diffclean.data.manifest import Status, latest, manifest_name, read_run_manifest
from diffclean.data.registry import open_source
from diffclean.data.sources import Source
from diffclean.errors import Interrupted
from diffclean.progress import NoProgress
from diffclean.workflow.steps import Hands

log = logging.getLogger(__name__)

_FICLONE = 0x40049409
"""ioctl(2) of Linux: let a file share the blocks of another one."""
COLUMNS = ("file", "original", "label")


def write_cleaned(
    data: Path, out: Path, listing: Path, left_out: Collection[str], variations: Path | None, hands: Hands
) -> int:
    """Put the kept images, or their variations, into a folder of their own, and list them.

    Files are shared with the new folder by reflink where the disk can do that, else by hard link, else copied. Images
    that lie in files of many (tars, tables, arrays) become files of their own. Suspects and images that cannot be read
    are left out.

    Args:
        data: the suspect data set, in any format.
        out: the cleaned one; it appears when it is complete, in place of an earlier one.
        listing: a CSV file with a row for each file in it: `file`, the key of its `original`, its `label`.
        left_out: the keys of the suspects and of the images that cannot be read.
        variations: the output of `variate`, whose variations are taken. None: the originals are taken.
        hands: the progress and the stop event.

    Returns:
        The number of files.

    Raises:
        WriteError: the data set cannot be written.
        Interrupted: the work was asked to stop.
    """
    progress = hands.progress or NoProgress()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    rows: list[tuple[str, str, str]] = []
    kept = list(_kept(data, left_out, variations))
    progress.begin("Writing the cleaned data set", len(kept))
    try:
        make_folders(part)
        for original, label, put_into in kept:
            if hands.stop is not None and hands.stop.is_set():
                raise Interrupted("Interrupted.", "The same command goes on from here.")
            try:
                rows.append((put_into(part), original, label))
            except ItemError as error:
                log.warning("%s is left out of %s: %s", original, out, error.message)
            progress.advance()
        os.sync()  # One sync for all files is enough: an incomplete folder is made again.
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    except OSError as error:
        raise write_error(error, out) from error
    finally:
        progress.end()
        shutil.rmtree(part, ignore_errors=True)
    write_whole(listing, _as_csv(rows))
    return len(rows)


def _kept(
    data: Path, left_out: Collection[str], variations: Path | None
) -> Iterator[tuple[str, str, Callable[[Path], str]]]:
    """Of everything that is kept: the key of the original, its label, and what puts it into a folder (see `put`)."""
    if variations is not None:
        rows = latest(read_run_manifest(variations / manifest_name())).values()
        for row in rows:
            if row.status is Status.OK and row.key not in left_out:
                yield row.key, row.label, partial(_put_file, contained(variations, row.output), row.output)
        return
    source = open_source(data)
    for item in source.items():
        if item.key not in left_out and item.problem is None:
            yield item.key, item.label, partial(put, source, item)


def put(source: Source, item: Item, root: Path) -> str:
    """Put one image into a folder of images that has a folder for each class.

    A file on this machine is shared (see `share`), one in a bucket is fetched. An image that lies in a file of many is
    written as a file of its own, whose name says where it comes from.

    Args:
        source: the data set, in any format.
        item: the image.
        root: the folder.

    Returns:
        The key of the image in that folder.

    Raises:
        ItemError: the image cannot be read.
        OSError: it cannot be written.
    """
    if source.part_of(item):
        data = source.read(item)
        name = f"{source.name(item)}.{extension_of(data)}"
    elif is_address(source.where):
        data, name = source.read(item), item.key
    else:
        return _put_file(item.path, item.key, root)
    place = contained(root, name)
    make_folders(place.parent)
    with place.open("xb") as file:
        file.write(data)
    return name


def _put_file(found: Path, name: str, root: Path) -> str:
    place = contained(root, name)
    make_folders(place.parent)
    share(found, place)
    return name


def share(found: Path, place: Path) -> None:
    """Give `place` the content of a file: by reflink, otherwise by hard link, otherwise by a copy."""
    try:
        with found.open("rb") as there, place.open("xb") as here:
            fcntl.ioctl(here.fileno(), _FICLONE, there.fileno())
        return
    except OSError:
        place.unlink(missing_ok=True)
    try:
        os.link(found, place)
    except OSError:
        shutil.copyfile(found, place)


def _as_csv(rows: list[tuple[str, str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")
