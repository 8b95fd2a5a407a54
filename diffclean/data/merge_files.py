"""Brings the files of shards together where a file holds many images: tars, Parquet files and the like."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffclean.data.archive import Head
from diffclean.data.finished_shard import FinishedShard, ShardFolder
from diffclean.data.hashes import sha256_of
from diffclean.data.item import ReadError
from diffclean.data.manifest import Row
from diffclean.data.merge_images import bring_file, check_free, is_plain
from diffclean.data.packed_sink import PackedSink
from diffclean.data.registry import open_sink
from diffclean.data.sources import Description
from diffclean.errors import DiffcleanError

_AGAIN = "Run that shard again, then merge again."


class MergedFiles:
    """The files of shards, whose names differ, and their indexes. One shard's index is in memory at a time.

    Args:
        target: the folder that all files are brought to.
        shards: the shards. In a bucket, all of them wrote to the target.
        format: the name of the format of the files.
    """

    def __init__(self, target: ShardFolder, shards: Sequence[FinishedShard], format: str) -> None:
        self._target, self._shards, self._format = target, shards, format

    def check(self, classes: Sequence[Mapping[str, int]]) -> None:
        """Check that each image is there as it was written: on disk by its hash, in a bucket by the size of its file.

        Raises:
            DiffcleanError: one is not, another file is in the way, or files number the classes in different ways.
        """
        if any(each != classes[0] for each in classes):
            raise DiffcleanError(
                "The shards have different classes, so that their files number them differently.",
                "Run the shards again that were made before a class was added or removed; then merge again.",
            )
        others = set(self._opened(self._target, "").index.files)
        for shard in self._shards:
            others -= set(self._opened(shard.folder, shard.shard.name).index.files)
        if others:
            raise DiffcleanError(
                f"{self._target.place} was continued after an earlier merge: {min(others)} is the file of no shard.",
                "The folder is merged already.",
            )
        target = self._opened(self._target, "")
        for shard in self._shards:
            sink = self._opened(shard.folder, shard.shard.name)
            for row in shard.made():
                self._check_image(sink, row)
            for file in sink.index.files:
                if shard.folder is not self._target:
                    _check_file(Path(str(sink.path_of(file))), Path(str(target.path_of(file))))

    def bring(self, classes: Mapping[str, int]) -> None:
        """Bring files to the target, and write the index of all of them."""
        import pyarrow as pa

        target = self._opened(self._target, "")
        names: list[str] = []
        with target.records.stream(target.index_name) as index:
            for shard in self._shards:
                sink = self._opened(shard.folder, shard.shard.name)
                for file in sink.index.files:
                    if shard.folder is not self._target:
                        bring_file(Path(str(sink.path_of(file))), Path(str(target.path_of(file))))
                    index.write(json.dumps(sink.index.entry(file)).encode() + b"\n")
                    names.append(file)
        if names:
            target.archive.complete(target.root, sorted(names), Head(classes, pa.schema([])))

    def _opened(self, folder: ShardFolder, owner: str) -> PackedSink:
        sink = open_sink(Description(self._format, str(folder.place), {"owner": owner}))
        assert isinstance(sink, PackedSink)
        return sink

    def _check_image(self, sink: PackedSink, row: Row) -> None:
        place = sink.index.images.get(row.output)
        if place is None or not sink.index.is_there(place.file):
            raise DiffcleanError(f"{row.output} of {sink.where} is in the manifest and in no file.", _AGAIN)
        if not isinstance(sink.root, Path) or sink.archive.single:  # an array holds pixels and not the bytes of images
            return
        try:
            found = hashlib.sha256(sink.read(row.output)).hexdigest()
        except ReadError as error:
            found = error.message
        if row.output_sha256 and found != row.output_sha256:
            raise DiffcleanError(
                f"{row.output} in {sink.root / sink.archive.folder / place.file} is not as it was written.",
                "Run that shard again with `variate --verify`, which makes such variations again; then merge again.",
            )


def _check_file(path: Path, goal: Path) -> None:
    if not is_plain(path):
        raise DiffcleanError(f"{str(path)!a} is in the index but not on disk (as a plain file).", _AGAIN)
    check_free(path, goal, sha256_of(path) if os.path.lexists(goal) else "")
