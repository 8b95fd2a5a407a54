"""The index of packed files: which file of an archive holds an image, and where in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from diffclean.data.bucket_path import AnyFile
from diffclean.data.records import Log, Records


@dataclass(frozen=True, slots=True)
class Packed:
    """The place of an image.

    Attributes:
        file: the file of the archive.
        where: the place in the file, as in `Item.where`.
        size: the size of the image in bytes.
    """

    file: str
    where: str
    size: int


class PackedIndex:
    """Lines that are appended, of which the last one for each file counts.

    Args:
        records: the place of the index.
        name: the name of the index.
        path_of: gives the place of a file; raises ValueError for a name that no run writes.

    Attributes:
        files: what is recorded of each file.
        images: where each image is. The images of files that were noted since the index was opened are not held here.
    """

    def __init__(self, records: Records, name: str, path_of: Callable[[str], AnyFile]) -> None:
        self._records, self._name, self._path_of = records, name, path_of
        self.files: dict[str, dict[str, Any]] = {}
        self.images: dict[str, Packed] = {}
        self._seen: dict[str, bool] = {}
        self._log: Log | None = None
        log = records.log(name, write=False)
        for line in log.lines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                break  # A kill cut this line off: its file counts as not written and is packed from the spool again.
        log.close()

    def is_there(self, file: str) -> bool:
        """Whether a file is a plain file with the size that was written; checked once per file."""
        if file not in self._seen:
            path = self._path_of(file)
            plain = path.is_file() and not path.is_symlink()
            self._seen[file] = plain and path.stat().st_size == self.files[file]["bytes"]
        return self._seen[file]

    def note(self, file: str, size: int, digest: str, images: list[tuple[str, str, int]]) -> None:
        """Record that a file was written. Its content is not held in memory: open the index again to read it."""
        content = {"file": file, "bytes": size, "digest": digest}
        self._append(content | {"images": images})
        self._take(content | {"images": []})
        for key, _, _ in images:
            self.images.pop(key, None)  # an image that lay in another file before does not count there any more

    def drop(self, images: list[str]) -> None:
        """Record that these images no longer count, though files hold them."""
        if images:
            self._append({"dropped": images})
            self._take({"dropped": images})

    def images_in(self, file: str) -> Iterator[str]:
        """The images that a file holds and no other has taken over, among those that are held here."""
        there = self.files.get(file)
        found = ((key, self.images.get(key)) for key in (there["keys"] if there else ()))
        return (key for key, packed in found if packed is not None and packed.file == file)

    def entry(self, file: str) -> dict[str, Any]:
        """The line that records a file and its images, among those that are held here."""
        there = self.files[file]
        found = [(key, self.images[key]) for key in self.images_in(file)]
        images = [(key, packed.where, packed.size) for key, packed in found]
        return {"file": file, "bytes": there["bytes"], "digest": there["digest"], "images": images}

    def forget(self, file: str) -> None:
        """Record that a file is no longer needed."""
        self._append({"file": file, "gone": True})
        self._take({"file": file, "gone": True})

    def close(self) -> None:
        """Close the log, which is opened again if it is needed."""
        if self._log is not None:
            self._log.close()
        self._log = None

    def _append(self, content: dict[str, Any]) -> None:
        if self._log is None:
            self._log = self._records.log(self._name)
            if self._is_torn(self._log):
                self._log.append(b"\n")
        self._log.append(json.dumps(content).encode() + b"\n")

    def _is_torn(self, log: Log) -> bool:
        last = b"\n"
        for line in log.lines():
            last = line
        return not last.endswith(b"\n")

    def _take(self, content: dict[str, Any]) -> None:
        for key in content.get("dropped", ()):
            self.images.pop(key, None)
        if "dropped" in content:
            return
        name = content["file"]
        self._path_of(name)  # Anyone may have written the index, and a file that it names may be removed.
        old = self.files.pop(name, None)
        for key in old["keys"] if old else ():
            if (found := self.images.get(key)) is not None and found.file == name:
                del self.images[key]
        self._seen.pop(name, None)
        if not content.get("gone"):
            images = content.pop("images")
            kinds = {(type(key), type(where), type(size)) for key, where, size in images}
            if (
                not kinds <= {(str, str, int)}
                or type(content["bytes"]) is not int
                or not isinstance(content["digest"], str)
            ):
                raise TypeError("an entry of other types")
            self.files[name] = content | {"keys": [key for key, _, _ in images]}
            self.images |= {key: Packed(name, where, size) for key, where, size in images}
