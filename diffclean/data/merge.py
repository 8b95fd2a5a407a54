"""Join the results of shards, in one output folder or in several, into one data set."""

from __future__ import annotations

import errno
import heapq
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path

from diffclean.data.atomic import (
    clean_temporaries,
    contained,
    make_folders,
    sync_folders,
    whole_file,
    write_error,
    write_whole,
)
from diffclean.data.classes import class_to_idx
from diffclean.data.hashes import sha256_of
from diffclean.data.journal import Journal, journal_path
from diffclean.data.lock import Lock
from diffclean.data.manifest import (
    Row,
    Status,
    manifest_name,
    manifest_rows,
    read_manifest_classes,
    row_place,
    rows_as_lines,
    shard_manifests,
    write_sorted_manifest,
)
from diffclean.data.records import FileLog, FolderRecords
from diffclean.data.run_record import differences, read_run, update_run
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError

_SHOWN = 20
"""The missing shards that a message names."""


@dataclass(frozen=True)
class _Opened:
    """A finished shard.

    Attributes:
        shard: the shard.
        folder: the folder that it wrote to.
        rows: returns its rows from the beginning, sorted.
    """

    shard: Shard
    folder: Path
    rows: Callable[[], Iterator[Row]]


def merge_manifests(outs: Path | Sequence[Path]) -> Path:
    """Join shards. Images from the other folders are linked (or copied) into the first.

    Nothing is written before everything was checked. After an interruption, merging again continues. The shards' own
    manifests and journals remain. With the joined journal, a run of the whole data set can continue from the result.

    Args:
        outs: the folder that all shards wrote to, or several folders.

    Returns:
        The path of the joined `manifest.parquet`, in the first folder.

    Raises:
        DiffcleanError: a shard is missing (the message names it), unfinished, present twice, or from another run; an
            image is present twice, missing, or changed since it was written (every image is hashed); or another process
            is writing to a folder.
    """
    folders: dict[str, Path] = {}
    for folder in [outs] if isinstance(outs, Path) else outs:
        if not folder.is_dir():
            raise DiffcleanError(f"{folder} is not a folder.", "Name the folders that the shards wrote to.")
        folders.setdefault(os.path.realpath(folder), folder)
    with ExitStack() as locks:
        for folder in folders.values():
            locks.enter_context(Lock(folder))
            clean_temporaries(folder)
        return _merge(list(folders.values()))


def _merge(folders: list[Path]) -> Path:
    target = folders[0]
    shards = _complete(folders)
    _check_same_run(folders)
    classes = _classes([read_manifest_classes(path) for path in shards.values()])
    with ExitStack() as journals:
        # Use the rows of the journals: they are those of the manifests, and also hold the sizes of the files.
        opened = [_finished(shard, path, journals) for shard, path in sorted(shards.items())]
        _check_journal(target, opened)
        for folder, row in _outputs(opened):
            _check_output(folder, target, row)
        for folder, row in _outputs(opened):
            if folder != target:
                _bring(contained(folder, row.output), contained(target, row.output))
        with whole_file(journal_path(target)) as file:
            for _, row in _joined(opened):
                file.write(rows_as_lines([row]))
        write_sorted_manifest(FolderRecords(target), (row for _, row in _joined(opened)), class_to_idx=classes)
    found = read_run(target)
    update_run(FolderRecords(target), found, replace(found, class_to_idx=classes))
    return target / manifest_name()


def _classes(found: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The classes of all shards together."""
    if all(each == found[0] for each in found):
        return dict(found[0])  # these may be a classifier's, whose numbers need not follow the names
    # A shard that began before a class was added has fewer classes and numbers them differently.
    return class_to_idx(label for each in found for label in each)


def _finished(shard: Shard, manifest: Path, journals: ExitStack) -> _Opened:
    """The journal of a finished shard, or its manifest if the journal is gone."""
    path = journal_path(manifest.parent, shard)
    if not path.is_file():
        return _Opened(shard, manifest.parent, lambda: manifest_rows(manifest))
    journal = journals.enter_context(Journal(FileLog(path, write=False)))
    for row, listed in zip_longest(journal.rows(), manifest_rows(manifest)):
        if row != listed:
            raise DiffcleanError(
                f"Shard {shard.name} was started again and has not finished.", "Let it finish, then merge again."
            )
    return _Opened(shard, manifest.parent, journal.rows)


def _joined(opened: Sequence[_Opened]) -> Iterator[tuple[_Opened, Row]]:
    """The rows of all shards, sorted.

    Raises:
        DiffcleanError: two shards have the same image.
    """
    streams = [map(partial(_with, shard), shard.rows()) for shard in opened]
    last: tuple[_Opened, Row] | None = None
    for shard, row in heapq.merge(*streams, key=lambda pair: row_place(pair[1])):
        if last is not None and last[0] is not shard and row_place(last[1]) == row_place(row):
            names = " and in ".join(sorted((last[0].shard.name, shard.shard.name)))
            raise DiffcleanError(
                f"{row.key} (variant {row.variant}) is in shard {names}.",
                "An image belongs to one shard only: run the shards again in new folders.",
            )
        last = shard, row
        yield last


def _with(shard: _Opened, row: Row) -> tuple[_Opened, Row]:
    return shard, row


def _outputs(opened: Sequence[_Opened]) -> Iterator[tuple[Path, Row]]:
    """The folder and the last row of each variation that was made."""
    for _, group in groupby(_joined(opened), lambda pair: row_place(pair[1])):
        *_, (shard, row) = group
        if row.status is Status.OK:
            yield shard.folder, row


def _check_journal(target: Path, opened: Sequence[_Opened]) -> None:
    """Refuse the merge if the joined journal of an earlier merge has rows that the shards do not have."""
    path = journal_path(target)
    with Journal(FileLog(path, write=False)) as journal:
        joined = (row for _, row in _joined(opened))
        following = next(joined, None)
        for row in journal.rows():
            while following is not None and following != row and row_place(following) <= row_place(row):
                following = next(joined, None)
            if following != row:
                raise DiffcleanError(
                    f"{path} was continued after an earlier merge, so {target} holds more than its shards.",
                    "The folder is merged already, and merging again would lose what was added.",
                )
            following = next(joined, None)


def _complete(folders: list[Path]) -> dict[Shard, Path]:
    found: dict[Shard, Path] = {}
    for folder in folders:
        for shard, path in shard_manifests(folder).items():
            if shard in found:
                raise DiffcleanError(
                    f"Shard {shard.name} is there twice: {found[shard]} and {path}.", "Name only one of these folders."
                )
            found[shard] = path
    counts = sorted({shard.count for shard in found})
    if not counts:
        raise DiffcleanError(
            f"No finished shard in {', '.join(map(str, folders))}.",
            "A shard is finished when it has written its manifest: let the shards finish, then merge again.",
        )
    if len(counts) > 1:
        raise DiffcleanError(
            f"The shards divide the data set into different numbers of parts: {' and '.join(map(str, counts))}.",
            "Name only the folders of one division.",
        )
    missing = [Shard(index, counts[0]) for index in range(1, counts[0] + 1) if Shard(index, counts[0]) not in found]
    if missing:
        shown = missing[:_SHOWN]
        begun = [shard for shard in shown if any(journal_path(folder, shard).exists() for folder in folders)]
        lines = [f"shard {s.name} {'has not finished' if s in begun else 'is missing'}" for s in shown]
        lines += [f"and {len(missing) - _SHOWN} more"] * (len(missing) > _SHOWN)
        raise DiffcleanError(
            "Not all shards are here: " + ", ".join(lines) + ".",
            "Let them finish, then merge again and name every folder that they wrote to.",
        )
    return found


def _check_same_run(folders: list[Path]) -> None:
    first = read_run(folders[0])
    for folder in folders[1:]:
        different = differences(first, read_run(folder))
        if different:
            raise DiffcleanError(
                f"{folder} belongs to another run than {folders[0]}:\n  " + "\n  ".join(different),
                "Name only folders of one run.",
            )


def _check_output(folder: Path, target: Path, row: Row) -> None:
    path, goal = contained(folder, row.output), contained(target, row.output)
    if not _is_plain(path):
        raise DiffcleanError(
            f"{str(path)!a} is in the manifest but not on disk (as a plain file).",
            "Run that shard again, then merge again.",
        )
    if row.output_sha256 and sha256_of(path) != row.output_sha256:
        raise DiffcleanError(
            f"{str(path)!a} is not as it was written: its sha256 differs from the one in the manifest.",
            "Run that shard again with `variate --verify`, which makes such variations again; then merge again.",
        )
    if folder == target or not os.path.lexists(goal):
        return
    # The file may come from an earlier merge that was interrupted, or from something else.
    if not _is_plain(goal) or sha256_of(goal) != row.output_sha256:
        raise DiffcleanError(
            f"{str(goal)!a} is in the way: its content differs from that of {str(path)!a}.",
            "Move it to another folder, then merge again.",
        )


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _bring(source: Path, target: Path) -> None:
    """Hard-link one image into the first folder, or copy it if a link is not possible."""
    make_folders(target.parent)
    try:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            return  # an earlier merge linked it, and its content was checked
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            write_whole(target, source.read_bytes(), sync_folder=False)
            with suppress(PermissionError):  # disks of other systems have no modes
                shutil.copymode(source, target)
        sync_folders(target.parent)
    except OSError as error:
        raise write_error(error, target) from error
