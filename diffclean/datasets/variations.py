"""Reads an output folder of `variate` as samples that a classifier learns from."""

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
from diffclean.data.places import place_of
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
"""The share of the teacher's images below which the variations seem to belong to another data set."""


def find_variations(folder: Path, option: str = "`data`") -> Path:
    """The only `*-variations` folder in `folder`.

    Args:
        folder: the folder to search.
        option: the option with which another folder can be named, for the message.

    Raises:
        DiffcleanError: there is none, or there are several.
    """
    found = sorted(path for path in folder.glob("*-variations") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if not found:
        raise DiffcleanError(
            f"There is no *-variations folder in {folder.resolve()}.",
            f"Make one with: diffclean variate DATA. Or name one with: {option} FOLDER",
        )
    raise DiffcleanError(
        f"There are {len(found)} *-variations folders in {folder.resolve()}: {named([p.name for p in found])}.",
        f"Name one, for example: {option} {found[0].name}",
    )


def is_variation_run(root: Path) -> bool:
    """Whether `variate` wrote this folder."""
    return (place_of(root) / RUN_FILE).is_file()


def classes_of(root: Path, label_from: str | None = None) -> dict[str, int]:
    """The classes of a data set, found without reading its images: the stored ones, or its folders (see `data.labels`).

    Raises:
        DiffcleanError: `root` is not a folder of images, or its manifest cannot be read.
    """
    if is_variation_run(root):
        return read_manifest_classes(_manifest(root))
    return stored_classes(root) or open_source(root, label_from=label_from).class_to_idx


def compare_classes(root: Path, classes: Mapping[str, int], teacher: Mapping[str, int], labelled: bool) -> None:
    """Check that the data have the classes of the teacher. Their numbers may differ, since labels are compared by name.

    Args:
        root: the data set.
        classes: the classes of the data set.
        teacher: the classes of the teacher.
        labelled: whether labels are learned from. If not, other classes only cause a warning, and none are needed.

    Raises:
        UsageError: labels are learned from and the classes differ; the message names the classes that only one of the
            two has.
    """
    only_data, only_teacher = (sorted(set(a) - set(b)) for a, b in ((classes, teacher), (teacher, classes)))
    parts = [f"only {root} has {named(only_data)}"] if only_data else []
    parts += [f"only the teacher knows {named(only_teacher)}"] if only_teacher else []
    if not parts:
        return
    found = f"The classes of {root} and of the teacher do not match: " + "; ".join(parts) + "."
    if labelled:
        raise UsageError(
            found, "Give data with the classes that the teacher was trained on; or `alpha` 1, which needs no labels."
        )
    if len(classes) > 1:  # one folder, or none, is hardly meant as classes
        log.warning("%s Labels are not used here (`alpha` 1), so this is no problem if it is intended.", found)


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
        class_to_idx: the classes of the model.
        size: as for `read_images`.
        labelled: whether every image must have a label. If False, an image without a class of the model gets the label
            -1.
        without: the keys of images (for variations: of their originals) that are left out.
        memory: the bytes that the decoded images may take; a larger set is streamed. None stands for no limit.
        progress: is advanced for each image.
        label_from: where the labels come from, see `data.labels`; for variations the manifest says it.

    Raises:
        UsageError: `without` names none of the images or all of them, the sizes differ and none was given, or the
            classes do not match.
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
    """Samples in which the variations of each image are adjacent."""
    source, there = outputs_of(root)
    gone = "is in the manifest but not in the folder"
    items = [there.get(row.output) or Item(row.output, "", row.label, gone) for row in rows]
    read = read_images(source, items, size, memory_bytes=memory, progress=progress)
    by_output = {row.output: row for row in rows}
    kept = [by_output[item.key] for item in read.items]
    hashes = zip(kept, read.sha256s, strict=True)
    if changed := [row.output for row, sha256 in hashes if row.output_sha256 not in ("", sha256)]:
        log.warning(
            "%d images in %s were changed after `variate` made them, such as %s.",
            len(changed),
            root,
            changed[0],
        )
    groups = [(key, list(group)) for key, group in groupby(kept, lambda row: row.key)]
    firsts = [group[0] for _, group in groups]
    if labelled and (strange := [row.key for row in firsts if row.label not in class_to_idx]):
        raise DiffcleanError(
            f"{len(strange)} images in {root} have no class of the teacher, such as {strange[0]}.",
            "Expected <class>/image; or give distill `alpha` 1, which needs no labels.",
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
    """Warn if most of the teacher's images are not among the originals of these variations.

    Args:
        root: the folder.
        sources: the sha256 of the originals.
        known: the teacher's `sketch_of`; empty if nothing is known.
    """
    if not known:
        return
    short = {sha256[:16] for sha256 in sources if sha256}
    share = sum(sha256 in short for sha256 in known) / len(known)
    if short and share < _ALIKE:
        log.warning(
            "%s seems to come from another data set than the one that the teacher was trained on: only %.0f%% of the "
            "teacher's images have a variation here.",
            root,
            100 * share,
        )


def _manifest(root: Path) -> Path:
    if not (place_of(root) / MANIFEST).is_file():
        if shards := shard_manifests(root):
            raise DiffcleanError(f"{root} is in {len(shards)} shards.", f"Join them first: diffclean merge {root}")
        raise DiffcleanError(
            f"{root} holds a run of variate that is not finished ({MANIFEST} is missing).",
            "To finish it, type its diffclean variate command again.",
        )
    return root / MANIFEST


def _place(row: Row) -> tuple[bytes, int]:
    return key_bytes(row.key), row.variant
