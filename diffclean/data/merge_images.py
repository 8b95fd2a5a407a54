"""Brings the images of shards together where each image is a file of its own."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from diffclean.data.atomic import contained, make_folders, sync_folders, whole_file, write_error
from diffclean.data.bucket_path import BucketPath
from diffclean.data.finished_shard import FinishedShard, ShardFolder, all_made
from diffclean.data.hashes import sha256_of
from diffclean.data.manifest import Row
from diffclean.data.registry import FOLDER, open_sink
from diffclean.errors import DiffcleanError

_AGAIN = "Run that shard again, then merge again."


class MergedImages:
    """The images of shards.

    Args:
        target: the folder that all images are brought to.
        shards: the shards. In a bucket, all of them wrote to the target.
    """

    def __init__(self, target: ShardFolder, shards: Sequence[FinishedShard]) -> None:
        self._target, self._shards = target, shards

    def check(self, classes: Sequence[Mapping[str, int]]) -> None:
        """Check that each image is there as it was written: on disk by its hash, in a bucket by its size.

        Raises:
            DiffcleanError: one is not, or another file is in its way.
        """
        target = self._target.place
        if isinstance(target, BucketPath):
            sink = open_sink(str(target), FOLDER)
            for _, row in all_made(self._shards):
                size = sink.size(row.output)
                if size is None or (row.output_bytes and size != row.output_bytes):
                    found = (
                        "not in the bucket" if size is None else f"an object of {size} bytes, not {row.output_bytes}"
                    )
                    raise DiffcleanError(f"{row.output} in {target} is in the manifest and {found}.", _AGAIN)
            return
        for shard, row in all_made(self._shards):
            folder = shard.folder.place
            assert isinstance(folder, Path)
            _check_output(folder, target, row)

    def bring(self, classes: Mapping[str, int]) -> None:
        """Bring images to the target."""
        target = self._target.place
        if isinstance(target, BucketPath):
            return
        for shard, row in all_made(self._shards):
            folder = shard.folder.place
            if folder != target and isinstance(folder, Path):
                bring_file(contained(folder, row.output), contained(target, row.output))


def _check_output(folder: Path, target: Path, row: Row) -> None:
    path = contained(folder, row.output)
    if not is_plain(path):
        raise DiffcleanError(f"{str(path)!a} is in the manifest but not on disk (as a plain file).", _AGAIN)
    if row.output_sha256 and sha256_of(path) != row.output_sha256:
        raise DiffcleanError(
            f"{str(path)!a} is not as it was written: its sha256 differs from the one in the manifest.",
            "Run that shard again with `variate --verify`, which makes such variations again; then merge again.",
        )
    if folder != target:
        check_free(path, contained(target, row.output), row.output_sha256)


def check_free(path: Path, goal: Path, sha256: str) -> None:
    """Refuse a file in the way of another one. It may come from an earlier merge that was interrupted, and stays then.

    Raises:
        DiffcleanError: something else is in the way.
    """
    if os.path.lexists(goal) and (not is_plain(goal) or sha256_of(goal) != sha256):
        raise DiffcleanError(
            f"{str(goal)!a} is in the way: its content differs from that of {str(path)!a}.",
            "Move it to another folder, then merge again.",
        )


def is_plain(path: Path) -> bool:
    """Whether this is a plain file and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def bring_file(source: Path, target: Path) -> None:
    """Hard-link one file, or copy it if a link is not possible; raises WriteError."""
    make_folders(target.parent)
    try:
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            return  # an earlier merge linked it, and its content was checked
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            with source.open("rb") as there, whole_file(target, sync_folder=False) as here:
                shutil.copyfileobj(there, here, 2**20)
            with suppress(PermissionError):  # disks of other systems have no modes
                shutil.copymode(source, target)
        sync_folders(target.parent)
    except OSError as error:
        raise write_error(error, target) from error
