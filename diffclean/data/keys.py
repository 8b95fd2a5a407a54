"""Keys identify images and determine where variations are written.

The key of an image is its path relative to its source. On disk, this path is bytes. As text, it is a `str` with `/`
between folders, in which `%XX` (upper-case hexadecimal) stands for one byte that text cannot carry safely: bytes that
are not UTF-8, control characters (newline, tab, DEL, C1), Unicode line separators and bidirectional overrides (which
could mislead the reader of a log), and `%` itself. Each path has exactly one key, and each key exactly one path.
"""

from __future__ import annotations

import os
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from diffclean.errors import DiffcleanError

# A fixed list and not `str.isprintable`, which depends on Python's Unicode version: a key must always be spelled alike.
_UNSAFE = re.compile("[\x00-\x1f%\x7f-\x9f\u2028-\u202e\u2066-\u2069\udc80-\udcff]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_OWN = re.compile(r"run\.json|journal.*\.jsonl|manifest.*\.parquet")
_CUT_ESCAPE = re.compile("%[0-9A-F]?$")
_LABEL_CHARACTERS = 200
NAME_LIMIT_BYTES = 255
_SHOWN = 5


class NameCollisionError(DiffcleanError):
    """The variations of some images could not have separate names; `problems` has one line for each."""

    def __init__(self, problems: list[str], hint: str) -> None:
        more = f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__("Some images cannot keep separate names:\n  " + "\n  ".join(problems[:_SHOWN]) + more, hint)
        self.problems = problems
        self.args = (problems, hint)  # what an error is made of again in another process


class BadKeyError(DiffcleanError):
    """The text is not a key: it leads out of its folder, or it is not the one valid spelling."""


def key_from_path(relative: PurePath | str | bytes) -> str:
    """The key of a path that is relative to its source.

    Raises:
        BadKeyError: the path is empty or absolute, or has an empty, `.` or `..` part.
    """
    raw = os.fsencode(relative)
    _check_inside(raw)
    return _text(raw)


def key_bytes(key: str) -> bytes:
    """The raw bytes of the path that `key` names. Seeds are computed from these bytes, and keys are sorted by them.

    Raises:
        BadKeyError: `key` is not exactly what `key_from_path` would have returned.
    """
    try:
        raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), key.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadKeyError(f"Not a key: {key!a} is not valid Unicode.") from None
    _check_inside(raw)
    if _text(raw) != key:  # `%2E%2E/x`, `%41`, a bare `%`: a second spelling would be a second identity
        raise BadKeyError(f"Not a key: {key!a} must be spelled {_text(raw)!a}.")
    return raw


def path_from_key(key: str) -> Path:
    """The relative path that `key` names. It is never absolute and never contains `..`.

    Raises:
        BadKeyError: as for `key_bytes`.
    """
    return Path(os.fsdecode(key_bytes(key)))


def safe_text(text: str) -> str:
    """A text from an untrusted place with everything that could mislead a reader escaped, as in keys."""
    return _text(os.fsencode(text))


def label_text(text: str) -> str:
    """An untrusted label as text that can name a folder: it leads nowhere else, and is not hidden.

    What this function, or a folder, gave as a label stays as it is, so that labels survive any number of conversions.
    """
    text = text.replace("\0", "").strip()
    try:
        key_bytes(text)
    except BadKeyError:
        text = safe_text(text)
    clean = _CUT_ESCAPE.sub("", text.replace("/", "_")[:_LABEL_CHARACTERS])
    return f"_{clean}" if clean.startswith(".") else clean


def label_of(key: str) -> str:
    """The label of an image: its first folder, or `""` if it lies in no folder."""
    folder, slash, _ = key.partition("/")
    return folder if slash else ""


def variation_name(key: str, variant: int, extension: str, full_names: bool = False) -> str:
    """The key of a variation in the output folder: `cat/1.jpg`, 0, `png` -> `cat/1_v00.png`.

    Args:
        key: the key of the original image.
        variant: 0 or more; written with at least two digits.
        extension: letters and digits, without the dot.
        full_names: whether the name keeps the extension of the original: `cat/1.jpg_v00.png`.

    Raises:
        BadKeyError: `key` is not a key.
        ValueError: `variant` or `extension` is not as described above.
    """
    if variant < 0 or not extension.isalnum():
        raise ValueError(f"variant {variant!r}, extension {extension!r}")
    key_bytes(key)
    folder, slash, name = key.rpartition("/")
    stem = name if full_names else name.rpartition(".")[0] or name
    return f"{folder}{slash}{stem}_v{variant:02d}.{extension}"


def is_too_long(key: str) -> bool:
    """Whether file systems refuse a file name of this length. Only that one image then fails."""
    return len(key_bytes(key).rpartition(b"/")[2]) > NAME_LIMIT_BYTES


def check_collisions(
    keys: Iterable[str], *, variants: int = 1, extension: str = "png", full_names: bool = False
) -> None:
    """Before any work, refuse keys whose variations could not be stored side by side on every disk.

    Two keys collide if they differ only in extension, in upper and lower case or in Unicode normal form. A folder in
    two spellings would make one class out of two, and a variation can need the name of a folder. Only a number of eight
    bytes is held per key.

    Args:
        keys: the keys of all images. They are read twice if something may collide, so an iterator is first made a list.
        variants: the number of variations of each image.
        extension: the extension of the files that are written.
        full_names: whether names keep the extensions of the originals, so that keys may differ in extension alone.

    Raises:
        NameCollisionError: lists the first few collisions and says what to rename or type.
    """
    keys = list(keys) if isinstance(keys, Iterator) else keys
    folders: dict[str, str] = {}
    problems: dict[str, None] = {}  # a set that keeps the order
    stems = array("q")
    last_folder = ""
    for key in keys:
        stem = _stem(key, full_names)
        stems.append(hash(_folded(stem)))
        folder = stem.rpartition("/")[0]
        if folder != last_folder:
            last_folder = folder
            problems |= dict.fromkeys(_respelled(folder, folders))
    wanted = _repeated(stems) | {hash(_folded(stem)) for stem in _stems_of_names(folders, extension)}
    if wanted:
        doubtful = (key for key in keys if hash(_folded(_stem(key, full_names))) in wanted)
        problems |= dict.fromkeys(_shared(doubtful, variants, extension, full_names, folders))
    own = (folder for folder in folders.values() if _OWN.fullmatch(folder))
    problems |= dict.fromkeys(f"the folder {folder}/ has the name of a file of diffclean" for folder in own)
    if problems:
        option = "" if full_names else " Where only extensions differ, `full_names` keeps them in the names."
        raise NameCollisionError(
            list(problems),
            f"Nothing was written. Rename one of each in the source: they must differ in more than case.{option}",
        )


def _stem(key: str, full_names: bool) -> str:
    """The part before the endings in the names of a key's variations: the key, with or without its extension."""
    if full_names:
        return key
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"


def _respelled(folder: str, folders: dict[str, str]) -> Iterator[str]:
    """Register a folder and those above it; yields a problem for each that is already known in another spelling."""
    for each in _folders(folder + "/"):
        other = folders.setdefault(_folded(each), each)
        if other != each:
            yield f"{other}/ and {each}/ are one folder on a disk that ignores case"


def _repeated(numbers: array[int]) -> set[int]:
    """The numbers that occur more than once."""
    import numpy as np

    ordered = np.sort(np.frombuffer(numbers, np.int64)) if numbers else np.empty(0, np.int64)
    return {int(number) for number in np.unique(ordered[1:][ordered[1:] == ordered[:-1]])}


def _stems_of_names(folders: Iterable[str], extension: str) -> Iterator[str]:
    """The stems of the keys whose variations would have these (folded) names."""
    variation = re.compile(rf"(.*)_v[0-9]{{2,}}\.{re.escape(extension)}", re.DOTALL)
    return (found[1] for found in map(variation.fullmatch, folders) if found)


def _shared(
    keys: Iterable[str], variants: int, extension: str, full_names: bool, folders: dict[str, str]
) -> Iterator[str]:
    """The names that two of these keys, or one of them and a folder, would both need."""
    owners: dict[str, str] = {}
    for key in keys:
        for variant in range(variants):
            output = variation_name(key, variant, extension, full_names)
            other = owners.setdefault(_folded(output), key)
            if other != key:
                yield f"{other} and {key} would both become {output}"
                break
    for name in sorted(owners.keys() & folders.keys()):
        yield f"{owners[name]} would need the name of the folder {folders[name]}/"


def _text(raw: bytes) -> str:
    def escape(found: re.Match[str]) -> str:
        return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))

    return _UNSAFE.sub(escape, raw.decode("utf-8", "surrogateescape"))


def _check_inside(raw: bytes) -> None:
    if b"\0" in raw or any(part in (b"", b".", b"..") for part in raw.split(b"/")):
        raise BadKeyError(f"Not a key: {_text(raw)!a} is not a plain relative path inside its folder.")


def _folders(key: str) -> list[str]:
    parts = key.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
