"""The format of one `.npz` file with an array of images and one of labels, which is common in research.

Headers are read first and are trusted only if the file is large enough for what they promise. No pickle is ever loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffclean.data.archive import Entry, Head, Look, row_key
from diffclean.data.arrays import Array, array_archive, arrays_in, loaded, unpacked
from diffclean.data.bucket_path import AnyFile
from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.item import Item
from diffclean.data.keys import label_text
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.shard_files import check_unchanged, is_of, stamp_at
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIX = ".npz"
_IMAGES, _LABELS = (
    ("images", "x", "data", "x_train", "train_images"),
    ("labels", "label", "y", "y_train", "targets", "train_labels"),
)
_NAMES = ("class_names", "classes", "label_names")


def reads(where: str) -> bool:
    """Whether this is an `.npz` file, or a folder with one."""
    return is_of(where, _SUFFIX)


def open_source(where: str, **options: Any) -> PackedSource:
    """See `PackedSource`. `label_from` is an array."""
    return PackedSource(ArrayFile(options.get("label_from")), where, **options)


def open_sink(where: str, **options: Any) -> PackedSink:
    """See `PackedSink`."""
    return PackedSink(ArrayFile(), where, **options)


class ArrayFile:
    """The `Archive` for `.npz` files; see the module.

    Args:
        label_from: the array of labels. None: the array that looks like it.
    """

    name, title, suffix, ending, folder = "npz", "an array file (.npz)", _SUFFIX, "#", ""
    single = True

    def __init__(self, label_from: str | None = None) -> None:
        self._label_from = label_from
        self._using = Lock()
        self._open: tuple[AnyFile, str, NDArray[np.uint8]] | None = None

    def entries(self, part: str, path: AnyFile, look: Look) -> Iterator[Item]:
        """Yield one item per image."""
        stamp, images, labels, _ = self._contents(path)
        for row in range(images.shape[0]):
            label = look.label(None if labels is None else labels[row].item())
            yield Item(row_key(part, row), f"{stamp} {row}", label, None, stamp)

    def read(self, path: AnyFile, item: Item) -> bytes:
        """Return the image as PNG: the same pixels always give the same bytes."""
        stamp, row = item.where.rsplit(" ", 1)
        with self._using:
            now, images = self._mapped(path)
        check_unchanged(path, stamp, now)
        image = np.asarray(images[int(row)])
        if image.ndim == 2:
            image = image[..., None]
        elif image.shape[2] not in (1, 3):
            image = image.transpose(1, 2, 0)
        return encode(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))

    def about(self, path: AnyFile, item: Item) -> Mapping[str, Any]:
        """Return nothing: an array holds pixels alone."""
        return {}

    def fields(self, paths: list[AnyFile]) -> pa.Schema:
        """Return no types, because nothing travels along with the images."""
        import pyarrow as pa

        return pa.schema([])

    def class_names(self, paths: list[AnyFile]) -> dict[str, int]:
        """Return the class names from an array of names in the file."""
        return {name: number for number, name in enumerate(self._contents(paths[0])[3])}

    def pack(self, file: BinaryIO, entries: Iterator[Entry], count: int, head: Head) -> list[str]:
        """Write `images`, `labels`, `class_names` and `keys`.

        Raises:
            DiffcleanError: the images differ in size.
        """
        labels, keys = np.full(count, -1, np.int64), []
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(_info("images"), "w", force_zip64=True) as target:
                shape: tuple[int, ...] = ()
                for row, entry in enumerate(entries):
                    image = decode(entry.data)
                    if not row:
                        shape = image.shape
                        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                        np.lib.format.write_array_header_1_0(target, header)
                    _check_shape(entry, image.shape, shape)
                    target.write(image.tobytes())
                    labels[row] = -1 if entry.number is None else entry.number
                    keys.append(entry.name)
            others: dict[str, Any] = {"keys": np.array(keys)}
            if head.class_to_idx:
                others |= {"labels": labels, "class_names": np.array(list(head.class_to_idx))}
            for name, values in others.items():
                with archive.open(_info(name), "w") as target:
                    np.lib.format.write_array(target, values, allow_pickle=False)
        return [f" {row}" for row in range(count)]

    def complete(self, folder: AnyFile, names: list[str], head: Head) -> None:
        """Add no file: one `.npz` file is the whole data set."""

    def _contents(self, path: AnyFile) -> tuple[str, Array, NDArray[Any] | None, list[str]]:
        """Return the stamp, the array of images, the labels, and the names of classes."""
        with array_archive(path) as (stamp, archive):
            arrays = arrays_in(archive)
            images = _chosen(path, arrays, [each for each in arrays if each.is_images], _IMAGES, "images")
            count = images.shape[0]
            fit = [each for each in arrays if _may_label(each, count)]
            if self._label_from is not None:
                fit = [each for each in arrays if each.name == self._label_from and each.shape[:1] == (count,)]
                if not fit:
                    raise UsageError(
                        f"{path} has no array {self._label_from!r} of {count} labels: {_told(arrays)}.", ""
                    )
            label = next((each for name in _LABELS for each in fit if each.name.lower() == name), None)
            label = label or (fit[0] if len(fit) == 1 else None)
            values = None if label is None else loaded(archive, label).reshape(count)
            named = next((each for each in arrays if each.name in _NAMES and each.dtype.kind == "U"), None)
            names = (
                [] if named is None else [label_text(str(name)) for name in loaded(archive, named).ravel()[:100_000]]
            )
        return stamp, images, values, names if len(set(names)) == len(names) else []

    def _mapped(self, path: AnyFile) -> tuple[str, NDArray[np.uint8]]:
        """Return the stamp of the file and its images, unpacked to a temporary file as they may be compressed."""
        stamp = stamp_at(path)
        if self._open is None or self._open[:2] != (path, stamp):
            with array_archive(path) as (stamp, archive):
                arrays = arrays_in(archive)
                images = _chosen(path, arrays, [each for each in arrays if each.is_images], _IMAGES, "images")
                self._open = path, stamp, unpacked(archive, images)
        return stamp, self._open[2]


def _may_label(array: Array, count: int) -> bool:
    return array.dtype.kind in "iuU" and array.shape in ((count,), (count, 1)) and array.name not in ("keys", *_NAMES)


def _chosen(path: AnyFile, every: list[Array], fit: list[Array], usual: tuple[str, ...], what: str) -> Array:
    for name in usual:
        for array in fit:
            if array.name.lower() == name:
                return array
    if len(fit) == 1:
        return fit[0]
    named = _told(fit or every)
    if fit:
        raise DiffcleanError(
            f"{path} has several arrays that may hold {what}: {named}.", f"Call the one that is meant `{what}`."
        )
    raise DiffcleanError(
        f"{path} has no array of {what}: it has {named or 'none'}.",
        "Expected uint8 of shape (N, H, W, 3), (N, H, W) or (N, 3, H, W): np.savez(FILE, images=images, labels=labels)",
    )


def _told(arrays: list[Array]) -> str:
    return ", ".join(f"{each.name} {each.dtype}{list(each.shape)}" for each in arrays[:20])


def _check_shape(entry: Entry, found: tuple[int, ...], first: tuple[int, ...]) -> None:
    if found != first:
        raise DiffcleanError(
            f"Images differ in size: {entry.name} has {found[1]}x{found[0]} px, those before it {first[1]}x{first[0]}. "
            "One array holds one size.",
            "Choose another format: `to` parquet, webdataset, huggingface or folder.",
        )


def _info(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))


ARCHIVE = ArrayFile
