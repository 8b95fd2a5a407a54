"""Join what shards have written, to one output folder or to several, into one data set."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from diffclean.data.atomic import contained, make_folders, sync_folders, write_error, write_whole
from diffclean.data.journal import journal_path, read_journal
from diffclean.data.lock import Lock
from diffclean.data.manifest import (
    Row,
    Status,
    read_manifest,
    read_manifest_classes,
    rows_as_lines,
    shard_manifests,
    write_manifest,
)
from diffclean.data.run_record import differences, read_run
from diffclean.data.shard import Shard
from diffclean.errors import DiffcleanError


def merge_manifests(outs: Path | Sequence[Path]) -> Path:
    """Join shards; images from the other folders are linked (or copied) into the first.

    Nothing is written before everything is checked; merging again after an interruption goes on. The shards' own
    manifests and journals stay; the joined journal lets a run of the whole data set go on from here.

    Args:
        outs: the folder that all shards wrote to, or several folders.

    Returns:
        The path of the joined `manifest.parquet`, in the first folder.

    Raises:
        DiffcleanError: a shard is missing (named), unfinished, there twice, or of another run; an image is there
            twice or gone; a folder is being written.
    """
    folders: dict[str, Path] = {}
    for folder in [outs] if isinstance(outs, Path) else outs:
        if not folder.is_dir():
            raise DiffcleanError(f"{folder} is not a folder.", "Give the folders that the shards wrote to.")
        folders.setdefault(os.path.realpath(folder), folder)
    with ExitStack() as locks:
        for folder in folders.values():
            locks.enter_context(Lock(folder))
        return _merge(list(folders.values()))


def _merge(folders: list[Path]) -> Path:
    target = folders[0]
    shards = _complete(folders)
    _check_same_run(folders)
    class_to_idx = read_run(target).class_to_idx
    rows: list[Row] = []
    owners: dict[tuple[str, int], Shard] = {}
    moves: list[tuple[Path, Row]] = []
    for shard, path in sorted(shards.items()):
        own = read_manifest(path)
        _check_finished(shard, path, own)
        if read_manifest_classes(path) != class_to_idx:
            raise DiffcleanError(f"{path} has another class_to_idx than {target / 'run.json'}.")
        for row in own:
            other = owners.setdefault((row.key, row.variant), shard)
            if other != shard:
                raise DiffcleanError(f"{row.key} (variant {row.variant}) is in shard {other.name} and in {shard.name}.")
        rows += own
        final = {(row.key, row.variant): row for row in own}.values()
        moves += [(path.parent, row) for row in final if row.status is Status.OK]
    journal = journal_path(target)
    if not set(read_journal(journal)) <= set(rows):
        raise DiffcleanError(f"{journal} goes on after an earlier merge: {target} is more than its shards.")
    for folder, row in moves:
        _check_output(folder, target, row)
    for folder, row in moves:
        if folder != target:
            _bring(contained(folder, row.output), contained(target, row.output))
    write_whole(journal, rows_as_lines(rows))
    return write_manifest(target, rows, class_to_idx=class_to_idx)


def _complete(folders: list[Path]) -> dict[Shard, Path]:
    found: dict[Shard, Path] = {}
    for folder in folders:
        for shard, path in shard_manifests(folder).items():
            if shard in found:
                raise DiffcleanError(f"Shard {shard.name} is there twice: {found[shard]} and {path}.")
            found[shard] = path
    counts = sorted({shard.count for shard in found})
    if not counts:
        raise DiffcleanError(
            f"No finished shard in {', '.join(map(str, folders))}.",
            "A shard is finished when it has written its manifest.",
        )
    if len(counts) > 1:
        raise DiffcleanError(f"Shards of several divisions: of {' and of '.join(map(str, counts))}.")
    missing = [Shard(index, counts[0]) for index in range(1, counts[0] + 1) if Shard(index, counts[0]) not in found]
    if missing:
        begun = [shard for shard in missing if any(journal_path(folder, shard).exists() for folder in folders)]
        lines = [f"shard {s.name} {'has not finished' if s in begun else 'is missing'}" for s in missing]
        raise DiffcleanError(
            "Not all shards are here: " + ", ".join(lines) + ".",
            "Run them to their end, then merge again, naming every folder that they wrote to.",
        )
    return found


def _check_same_run(folders: list[Path]) -> None:
    first = read_run(folders[0])
    for folder in folders[1:]:
        different = differences(first, read_run(folder))
        if different:
            raise DiffcleanError(f"{folder} is of another run than {folders[0]}:\n  " + "\n  ".join(different))


def _check_finished(shard: Shard, manifest: Path, rows: list[Row]) -> None:
    if len(read_journal(journal_path(manifest.parent, shard))) > len(rows):
        raise DiffcleanError(
            f"Shard {shard.name} was started again and has not finished.", "Run it to its end, then merge again."
        )


def _check_output(folder: Path, target: Path, row: Row) -> None:
    path, goal = contained(folder, row.output), contained(target, row.output)
    if not _is_plain(path):
        raise DiffcleanError(
            f"{str(path)!a} is in the manifest but not on disk (as a plain file).", "Run that shard again, then merge."
        )
    if folder == target or not os.path.lexists(goal):
        return
    # From an earlier merge that was interrupted, or something else?
    if not _is_plain(goal) or hashlib.sha256(goal.read_bytes()).hexdigest() != row.output_sha256:
        raise DiffcleanError(f"{str(goal)!a} is in the way: it is another file than {str(path)!a}.", "Move it away.")


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _bring(source: Path, target: Path) -> None:
    """Hard-link one image into the first folder; copy it where a link cannot reach."""
    make_folders(target.parent)
    try:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            return  # checked: an earlier merge brought it
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            write_whole(target, source.read_bytes(), sync_folder=False)
            shutil.copymode(source, target)
        sync_folders(target.parent)
    except OSError as error:
        raise write_error(error, target) from error
