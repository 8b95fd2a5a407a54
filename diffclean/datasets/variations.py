"""A folder that `variate` made, as what a classifier learns from."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from pathlib import Path

import torch

from diffclean.data.classes import check_not_marked
from diffclean.data.item import Item
from diffclean.data.keys import key_bytes
from diffclean.data.manifest import Row, Status, latest, read_manifest_classes, read_run_manifest, shard_manifests
from diffclean.data.outputs import outputs_of
from diffclean.data.registry import open_source
from diffclean.data.run_record import RUN_FILE
from diffclean.datasets.labelled import named, stored_classes
from diffclean.datasets.reading import read_images
from diffclean.datasets.samples import Samples, digest_of, folder_samples, left_after
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import Progress

log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
_ALIKE = 0.5
"""Share of the teacher's images below which the variations are taken for another data set's."""


def find_variations(folder: Path, option: str = "`data`") -> Path:
    """The one `*-variations` folder in `folder`.

    Args:
        folder: where to look.
        option: by which another one can be named.

    Raises:
        DiffcleanError: none there, or several.
    """
    found = sorted(path for path in folder.glob("*-variations") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if not found:
        raise DiffcleanError(
            f"There is no *-variations folder in {folder.resolve()}.",
            f"Make one with: diffclean variate DATA. Or name one: {option} FOLDER",
        )
    raise DiffcleanError(
        f"There are {len(found)} *-variations folders in {folder.resolve()}: {named([p.name for p in found])}.",
        f"Name one, for example: {option} {found[0].name}",
    )


def is_variation_run(root: Path) -> bool:
    """Whether `variate` wrote this folder."""
    return (root / RUN_FILE).is_file()


def classes_of(root: Path, label_from: str | None = None) -> dict[str, int]:
    """The classes of a data set without reading its images: stored ones, or its folders' (see `data.labels`).

    Raises:
        DiffcleanError: `root` is no folder of images, or its manifest cannot be read.
    """
    if is_variation_run(root):
        return read_manifest_classes(_manifest(root))
    return stored_classes(root) or open_source(root, label_from=label_from).class_to_idx


def compare_classes(root: Path, classes: Mapping[str, int], teacher: Mapping[str, int], labelled: bool) -> None:
    """Look whether data has the teacher's classes. Their numbers may differ: labels go by name.

    Args:
        root: of the data.
        classes: its own.
        teacher: the teacher's.
        labelled: whether labels are learned from. If not, other classes are only warned of, and none are needed.

    Raises:
        UsageError: labels are learned from, and are of other classes; names those that only one of the two has.
    """
    only_data, only_teacher = (sorted(set(a) - set(b)) for a, b in ((classes, teacher), (teacher, classes)))
    parts = [f"only {root} has {named(only_data)}"] if only_data else []
    parts += [f"only the teacher knows {named(only_teacher)}"] if only_teacher else []
    if not parts:
        return
    found = f"The classes of {root} and of the teacher do not match: " + "; ".join(parts) + "."
    if labelled:
        raise UsageError(found, "Give the data that the teacher was trained for; or `alpha` 1, which needs no label.")
    if len(classes) > 1:  # one folder, or none, is hardly meant as classes
        log.warning("%s Labels teach nothing here (`alpha` 1), so go on if that is meant.", found)


def load_variations(
    root: Path,
    class_to_idx: Mapping[str, int],
    size: tuple[int, int] | None = None,
    labelled: bool = True,
    without: Collection[str] = (),
    memory: int | None = None,
    progress: Progress | None = None,
    label_from: str | None = None,
) -> Samples:
    """Read an output folder of `variate`, or any image folder.

    Args:
        root: the folder.
        class_to_idx: of the model.
        size: as in `read_images`.
        labelled: False: images without a class of the model's will do, and get the label -1.
        without: keys of images (of originals, for variations) that are left out.
        memory: bytes that the decoded images may take, else they are streamed; None: no limit.
        progress: told of each image.
        label_from: where labels are, see `data.labels`; of variations the manifest says it.

    Raises:
        UsageError: `without` names no image that is there, or all; sizes differ and none was given; classes that do
            not match.
        DiffcleanError: the run is not finished, or has no variation.
    """
    if not is_variation_run(root):
        return folder_samples(root, size, class_to_idx, labelled, without, memory, progress, label_from)
    last = left_after(without, latest(read_run_manifest(_manifest(root))).values(), root)
    rows = sorted((row for row in last if row.status is Status.OK), key=_place)
    if not rows:
        raise DiffcleanError(f"{root} holds no variation: all {len(last)} attempts failed.", f"See {root / MANIFEST}.")
    if labelled:
        check_not_marked(root, (row.output for row in rows))
    if len(rows) < len(last):
        log.warning("%d variations failed when they were made, and are left out.", len(last) - len(rows))
    return _grouped(root, rows, class_to_idx, size, labelled, memory, progress)


def _grouped(
    root: Path,
    rows: list[Row],
    class_to_idx: Mapping[str, int],
    size: tuple[int, int] | None,
    labelled: bool,
    memory: int | None,
    progress: Progress | None,
) -> Samples:
    """The variations of each image side by side."""
    source, there = outputs_of(root)
    gone = "is in the manifest and not in the folder"
    items = [there.get(row.output) or Item(row.output, "", row.label, gone) for row in rows]
    read = read_images(source, items, size, memory_bytes=memory, progress=progress)
    by_output = {row.output: row for row in rows}
    kept = [by_output[item.key] for item in read.items]
    hashes = zip(kept, read.sha256s, strict=True)
    if changed := [row.output for row, sha256 in hashes if row.output_sha256 not in ("", sha256)]:
        log.warning(
            "%d images in %s are not as `variate` made them, such as %s. Were they meant to be changed?",
            len(changed),
            root,
            changed[0],
        )
    groups = [(key, list(group)) for key, group in groupby(kept, lambda row: row.key)]
    firsts = [group[0] for _, group in groups]
    if labelled and (strange := [row.key for row in firsts if row.label not in class_to_idx]):
        raise DiffcleanError(
            f"{len(strange)} images in {root} have no class that is known, such as {strange[0]}.",
            "Expected <class>/image; or give distill `alpha` 1, which needs no label.",
        )
    labels = [class_to_idx.get(row.label, -1) for row in firsts]
    texts = [(row.output, sha256, row.label) for row, sha256 in zip(kept, read.sha256s, strict=True)]
    return Samples(
        read.pixels,
        torch.tensor([0, *(len(group) for _, group in groups)]).cumsum(0),
        [key for key, _ in groups],
        torch.tensor(labels),
        dict(class_to_idx),
        read.failed,
        [row.source_sha256 for row in firsts],
        digest_of(texts),
    )


def warn_of_strangers(root: Path, sources: Iterable[str], known: list[str]) -> None:
    """Say so where the teacher's images are mostly not among the originals of these variations.

    Args:
        root: the folder.
        sources: sha256 of the originals.
        known: the teacher's `sketch_of`; empty: nothing is known.
    """
    if not known:
        return
    short = {sha256[:16] for sha256 in sources if sha256}
    share = sum(sha256 in short for sha256 in known) / len(known)
    if short and share < _ALIKE:
        log.warning(
            "%s seems to come from another data set than the teacher was trained on: only %.0f%% of its images have "
            "a variation here.",
            root,
            100 * share,
        )


def _manifest(root: Path) -> Path:
    if not (root / MANIFEST).is_file():
        if shards := shard_manifests(root):
            raise DiffcleanError(f"{root} is in {len(shards)} shards.", f"Join them first: diffclean merge {root}")
        raise DiffcleanError(
            f"{root} holds a run of variate that is not finished ({MANIFEST} is missing).",
            "Type its diffclean variate command again: it goes on where it stopped.",
        )
    return root / MANIFEST


def _place(row: Row) -> tuple[bytes, int]:
    return key_bytes(row.key), row.variant
