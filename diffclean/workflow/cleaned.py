"""Writes the cleaned data set: the kept images of the suspect data set, without copying them if the disk allows it."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from diffclean.data.atomic import contained, make_folders, write_error, write_whole
from diffclean.data.item import ItemError
from diffclean.data.manifest import Status, latest, manifest_name, read_run_manifest
from diffclean.data.registry import open_source
from diffclean.errors import Interrupted
from diffclean.progress import NoProgress
from diffclean.workflow.steps import Hands

_FICLONE = 0x40049409
"""ioctl(2) of Linux: let a file share the blocks of another one."""
COLUMNS = ("file", "original", "label")


def write_cleaned(
    data: Path, out: Path, listing: Path, left_out: Collection[str], variations: Path | None, hands: Hands
) -> int:
    """Put the kept images, or their variations, into a folder of their own, and list them.

    Originals and variations are shared with the new folder by reflink if the disk supports it, otherwise by hard link,
    and are copied if neither works. Suspects and images that cannot be read are left out.

    Args:
        data: the suspect data set.
        out: the folder of the cleaned data set. It appears when it is complete, in place of an earlier one.
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
        for name, original, label, found in kept:
            if hands.stop is not None and hands.stop.is_set():
                raise Interrupted("Interrupted.", "The same command goes on from here.")
            place = contained(part, name)
            make_folders(place.parent)
            if isinstance(found, Path):
                share(found, place)
            else:
                place.write_bytes(found)
            rows.append((name, original, label))
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
) -> Iterator[tuple[str, str, str, Path | bytes]]:
    """Yield name, key of the original, label, and file (or bytes, if it is not a file) of everything that is kept."""
    if variations is not None:
        rows = latest(read_run_manifest(variations / manifest_name())).values()
        for row in rows:
            if row.status is Status.OK and row.key not in left_out:
                yield row.output, row.key, row.label, contained(variations, row.output)
        return
    source = open_source(data)
    for item in source.items():
        if item.key in left_out or item.problem is not None:
            continue
        place = Path(item.where)
        if data.is_dir() and place.is_file():
            yield item.key, item.key, item.label, place
            continue
        try:
            yield item.key, item.key, item.label, source.read(item)
        except ItemError:
            continue


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
