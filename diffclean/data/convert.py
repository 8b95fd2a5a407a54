"""Writes a data set in another format without regenerating or decoding the images.

An array file is the exception, because it holds pixels: images are decoded when they are written to it, and become PNG
when they are read from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from diffclean.data.address import is_address
from diffclean.data.archive import Archive, Entry, Head
from diffclean.data.atomic import NameWriteError
from diffclean.data.bucket_path import AnyFile, BucketPath
from diffclean.data.decode import decode
from diffclean.data.division import divided
from diffclean.data.formats import extension_of
from diffclean.data.in_order import in_order
from diffclean.data.item import Item, ItemError
from diffclean.data.keys import NameCollisionError, check_collisions, label_of, variation_name
from diffclean.data.new_folder import check_new, new_folder
from diffclean.data.places import place_of, whole_at
from diffclean.data.registry import archive_of, format_of, open_sink, open_source
from diffclean.data.sources import Source
from diffclean.data.survey import Survey
from diffclean.errors import DiffcleanError, ExitCode, Interrupted
from diffclean.progress import NoProgress, Progress

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Images that are read, or written, at a time: each one in a bucket is a request."""


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote.

    Attributes:
        out: the folder, or its address.
        format: the format of the data set in it.
        images: how many images were written.
        classes: the number of classes.
        failed: key -> why an image was left out.
        passed_over: what the source contains that was not read.
    """

    out: Path | str
    format: str
    images: int
    classes: int
    failed: dict[str, str]
    passed_over: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code: done, or some images failed."""
        return ExitCode.SOME_FAILED if self.failed else ExitCode.DONE


def convert(
    where: str,
    out: Path,
    to: str | None = None,
    label_from: str | None = None,
    progress: Progress | None = None,
    stop: Event | None = None,
) -> Converted:
    """Write the images of one data set, with their labels and other data, as another data set.

    Args:
        where: the data set.
        out: a folder that does not exist yet, on disk or in a bucket. On disk it appears when it is complete. A bucket
            cannot rename a folder, so there each file appears when it is complete.
        to: a name in `registry.FORMATS`. None: the format of the source, which checks the data set and divides it into
            files again.
        label_from: where labels are, as defined by the format of the source.
        progress: is advanced for each image.
        stop: an event that ends the work when it is set.

    Raises:
        DiffcleanError: `out` exists, or the source cannot be used or does not fit into the format.
        Interrupted: `stop` was set; nothing is left behind.
    """
    source = open_source(where, label_from=label_from)
    to = to or format_of(where)
    place = place_of(out)
    check_new(place)
    open_sink(out, to).check_apart(source)
    survey = Survey(source)
    work = _Conversion(source, survey, progress or NoProgress(), stop or Event())
    with new_folder(place) as root:
        work.run(to, root)
    where_to = str(place) if isinstance(place, BucketPath) else out
    return Converted(where_to, to, work.written, len(survey.class_to_idx), work.failed, source.passed_over.as_json())


@dataclass
class _Conversion:
    source: Source
    survey: Survey
    progress: Progress
    stop: Event
    written: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    full_names: bool = False

    def run(self, to: str, root: AnyFile) -> None:
        archive = archive_of(to)
        self.progress.begin("Converting", self.survey.count)
        try:
            if archive is None:
                self._to_folder(to, root)
            else:
                self._to_archive(archive, root)
        finally:
            self.progress.end()
        if not self.written:
            key, why = next(iter(self.failed.items()))
            raise DiffcleanError(f"None of the {len(self.failed)} images can be read. {key}: {why}")

    def _to_folder(self, to: str, root: AnyFile) -> None:
        """Write `<label>/<name>.<extension by content>`; a folder has no place for other data."""
        sink = open_sink(str(root), to)
        sink.check_keys(self.survey.named(self._below_label), 1, "png", full_names=True)

        def write(read: tuple[Item, bytes]) -> None:
            item, data = read
            name = self._below_label(item)
            own = self.source.part_of(item) == ""  # a folder's own names have their extensions
            try:
                sink.write(name if own else f"{name}.{extension_of(data)}", data)
            except NameWriteError as error:
                self.written -= 1
                self._leave_out(item, error.message)

        for _ in in_order(write, self._read(), _AT_ONCE):
            pass
        sink.sync()
        sink.finish(lambda: [], self.source, self.survey.class_to_idx)

    def _below_label(self, item: Item) -> str:
        """The name of an image in class folders; a table may say another label than the folder that it lies in."""
        name = self.source.name(item)
        return name if not item.label or label_of(name) == item.label else f"{item.label}/{name}"

    def _to_archive(self, archive: Archive, root: AnyFile) -> None:
        head = Head(self.survey.class_to_idx, self.source.fields)
        self.full_names = self._names_differ_in_extensions()
        count = 0
        if archive.single:  # An array states first how many images it holds.
            count = sum(1 for _ in self._read(decoded=True))
            self.written, self.failed = 0, {}
        names = []
        read = ((item, len(data), data) for item, data in self._read(archive.single))
        for name, some in divided(read, self.source, archive):
            path = root / archive.folder / name
            with whole_at(path) as file:
                archive.pack(file, self._entries(some, head), count, head)
            names.append(name)
        archive.complete(root, names, head)

    def _entries(self, some: Iterator[tuple[Item, int, bytes]], head: Head) -> Iterator[Entry]:
        for item, _, data in some:
            part = self.source.part_of(item)
            name = variation_name(item.key, 0, "x", self.full_names).removesuffix("_v00.x")
            stem = item.key[len(part) + 1 :] if part else name
            number = head.class_to_idx.get(item.label)
            yield Entry(stem, data, extension_of(data), item.label, number, self.source.about(item))

    def _names_differ_in_extensions(self) -> bool:
        """Whether some names, such as `1.jpg` and `1.png`, differ in their extensions only."""
        try:
            check_collisions(self.survey.names)
        except NameCollisionError:
            return True
        return False

    def _read(self, decoded: bool = False) -> Iterator[tuple[Item, bytes]]:
        """Yield each image that can be read (with `decoded`, also decoded), and record the others."""

        def read(item: Item) -> tuple[Item, bytes | ItemError]:
            try:
                data = self.source.read(item)
                if decoded:
                    decode(data)
            except ItemError as error:
                return item, error
            return item, data

        threads = _AT_ONCE if is_address(self.source.where) else 1
        for item, found in in_order(read, self._items(), threads):
            if isinstance(found, ItemError):
                self._leave_out(item, found.message)
            else:
                self.written += 1
                yield item, found
            self.progress.advance(failed=len(self.failed))

    def _leave_out(self, item: Item, why: str) -> None:
        self.failed[item.key] = why
        log.warning("%s: %s", item.key, why)

    def _items(self) -> Iterator[Item]:
        for item in self.survey.items():
            if self.stop.is_set():
                raise Interrupted("Stopped.", "Nothing was written; the same command starts from the beginning.")
            yield item
