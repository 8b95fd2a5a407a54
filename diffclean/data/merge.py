"""Join the results of shards, in one output folder or in several, into one data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from diffclean.data.bucket_path import BucketPath
from diffclean.data.classes import class_to_idx
from diffclean.data.finished_shard import FinishedShard, ShardFolder, joined
from diffclean.data.journal import Journal, journal_name
from diffclean.data.manifest import (
    manifest_name,
    manifest_rows,
    read_manifest_classes,
    row_place,
    rows_as_lines,
    shard_manifests,
    write_sorted_manifest,
)
from diffclean.data.merge_files import MergedFiles
from diffclean.data.merge_images import MergedImages
from diffclean.data.outputs import written_format
from diffclean.data.places import place_of, real, records_at
from diffclean.data.registry import FOLDER
from diffclean.data.run_record import differences, read_run, update_run
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

_SHOWN = 20
"""The missing shards that a message names."""


def merge_manifests(outs: Path | Sequence[Path]) -> Path | str:
    """Join shards. Images, or files of many images, from the other folders are linked (or copied) into the first.

    Nothing is written before everything was checked. After an interruption, merging again continues. The shards' own
    manifests and journals remain. With the joined journal, a run of the whole data set can continue from the result.

    Args:
        outs: the folder that all shards wrote to, which may lie in a bucket; or several folders on disk.

    Returns:
        The path (or address) of the joined `manifest.parquet`, in the first folder.

    Raises:
        DiffcleanError: a shard is missing (the message names it), unfinished, present twice, or from another run; an
            image is present twice, missing, or changed since it was written (on disk, every image is hashed; in a
            bucket, sizes are compared); or another process is writing to a folder.
    """
    folders: dict[str, ShardFolder] = {}
    for out in [outs] if isinstance(outs, Path) else outs:
        place = place_of(out)
        if not place.is_dir():
            raise DiffcleanError(f"{place} is not a folder.", "Name the folders that the shards wrote to.")
        folders.setdefault(real(place), ShardFolder(place, records_at(place)))
    _check_reach(list(folders.values()))
    with ExitStack() as locks:
        for folder in folders.values():
            locks.enter_context(folder.records.hold(""))
            folder.records.sweep("")
        _merge(list(folders.values()))
    manifest = next(iter(folders.values())).place / manifest_name()
    return manifest if isinstance(manifest, Path) else str(manifest)


def _check_reach(folders: list[ShardFolder]) -> None:
    far = [folder.place for folder in folders if isinstance(folder.place, BucketPath)]
    if far and len(folders) > 1:
        raise DiffcleanError(
            f"{far[0]} lies in a bucket, and shards from several folders are joined on disk only.",
            "Copy them into one folder with the tools of the store, for example `aws s3 sync OTHER FIRST`, and merge "
            "that one. Shards that write to one OUT from the beginning need no copying.",
        )


def _merge(folders: list[ShardFolder]) -> None:
    target = folders[0]
    found = _complete(folders)
    _check_same_run(folders)
    stored = [read_manifest_classes(path) for _, path in found.values()]
    classes = _classes(stored)
    record = read_run(target.records)
    with ExitStack() as journals:
        # Use the rows of the journals: they are those of the manifests, and also hold the sizes of the files.
        shards = [_finished(shard, folder, path, journals) for shard, (folder, path) in sorted(found.items())]
        _check_journal(target, shards)
        format = written_format(record)
        images = MergedImages(target, shards) if format == FOLDER else MergedFiles(target, shards, format)
        images.check(stored)
        images.bring(classes)
        with target.records.stream(journal_name()) as file:
            for _, row in joined(shards):
                file.write(rows_as_lines([row]))
        write_sorted_manifest(target.records, (row for _, row in joined(shards)), class_to_idx=classes)
    update_run(target.records, record, replace(record, class_to_idx=classes))


def _classes(found: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The classes of all shards together."""
    if all(each == found[0] for each in found):
        return dict(found[0])  # these may be a classifier's, whose numbers need not follow the names
    # A shard that began before a class was added has fewer classes and numbers them differently.
    return class_to_idx(label for each in found for label in each)


def _finished(shard: Shard, folder: ShardFolder, manifest: Path, journals: ExitStack) -> FinishedShard:
    """The journal of a finished shard, or its manifest if the journal is gone."""
    journal = journals.enter_context(Journal(folder.records.log(journal_name(shard), write=False)))
    if not len(journal):
        return FinishedShard(shard, folder, lambda: manifest_rows(manifest))
    for row, listed in zip_longest(journal.rows(), manifest_rows(manifest)):
        if row != listed:
            raise DiffcleanError(
                f"Shard {shard.name} was started again and has not finished.", "Let it finish, then merge again."
            )
    return FinishedShard(shard, folder, journal.rows)


def _check_journal(target: ShardFolder, shards: Sequence[FinishedShard]) -> None:
    """Refuse the merge if the joined journal of an earlier merge has rows that the shards do not have."""
    log = target.records.log(journal_name(), write=False)
    with Journal(log) as journal:
        rows = (row for _, row in joined(shards))
        following = next(rows, None)
        for row in journal.rows():
            while following is not None and following != row and row_place(following) <= row_place(row):
                following = next(rows, None)
            if following != row:
                raise DiffcleanError(
                    f"{log.where} was continued after an earlier merge, so {target.place} holds more than its shards.",
                    "The folder is merged already, and merging again would lose what was added.",
                )
            following = next(rows, None)


def _complete(folders: list[ShardFolder]) -> dict[Shard, tuple[ShardFolder, Path]]:
    """Each shard with its folder and its manifest."""
    found: dict[Shard, tuple[ShardFolder, Path]] = {}
    for folder in folders:
        for shard, path in shard_manifests(Path(str(folder.place))).items():
            if shard in found:
                raise DiffcleanError(
                    f"Shard {shard.name} is there twice: {found[shard][1]} and {path}.",
                    "Name only one of these folders.",
                )
            found[shard] = folder, path
    counts = sorted({shard.count for shard in found})
    if not counts:
        raise DiffcleanError(
            f"No finished shard in {', '.join(str(folder.place) for folder in folders)}.",
            "A shard is finished when it has written its manifest: let the shards finish, then merge again.",
        )
    if len(counts) > 1:
        raise DiffcleanError(
            f"The shards divide the data set into different numbers of parts: {' and '.join(map(str, counts))}.",
            "Name only the folders of one division.",
        )
    missing = [Shard(index, counts[0]) for index in range(1, counts[0] + 1) if Shard(index, counts[0]) not in found]
    if missing:
        raise DiffcleanError(
            "Not all shards are here: " + ", ".join(_missing(missing, folders)) + ".",
            "Let them finish, then merge again and name every folder that they wrote to.",
        )
    return found


def _missing(shards: list[Shard], folders: list[ShardFolder]) -> Iterator[str]:
    for shard in shards[:_SHOWN]:
        begun = any((folder.place / journal_name(shard)).is_file() for folder in folders)
        yield f"shard {shard.name} {'has not finished' if begun else 'is missing'}"
    if len(shards) > _SHOWN:
        yield f"and {len(shards) - _SHOWN} more"


def _check_same_run(folders: list[ShardFolder]) -> None:
    first = read_run(folders[0].records)
    for folder in folders[1:]:
        different = differences(first, read_run(folder.records))
        if different:
            raise DiffcleanError(
                f"{folder.place} belongs to another run than {folders[0].place}:\n  " + "\n  ".join(different),
                "Name only folders of one run.",
            )
