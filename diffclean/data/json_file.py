"""Read JSON from untrusted files: size and depth are limited, and anything that is not standard JSON is refused."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from typing import Any, NoReturn

from diffclean.data.bucket_path import AnyFile
from diffclean.errors import DiffcleanError

LIMIT_BYTES = 4 * 2**20
"""The limit for configuration files. In the worst case, Python needs about twenty times as much memory."""
_DEEPEST = 100
"""The most objects and lists inside one another. Python's own limit is near a thousand when it reads JSON, and lower
when a value is copied or written."""


ObjectHook = Callable[[dict[str, Any]], Any]


def read_json(
    path: AnyFile,
    limit_bytes: int = LIMIT_BYTES,
    object_hook: ObjectHook | None = None,
    infinities: bool = False,
    file_names: bool = False,
) -> Any:
    """Read a JSON file.

    Args:
        path: the path of the file.
        limit_bytes: larger files are refused without being read.
        object_hook: called with each object as it is read; it may raise ValueError, which stops the reading.
        infinities: whether to accept Infinity and NaN, which Python's own writer produces, as numbers.
        file_names: see `json_of`.

    Raises:
        DiffcleanError: the file is not a plain file, cannot be read, is too large, or is not JSON.
    """
    data = read_limited(path, limit_bytes)
    try:
        return json_of(data, object_hook, infinities, file_names)
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.") from error


def read_limited(path: AnyFile, limit_bytes: int) -> bytes:
    """Read a file that should be small.

    Args:
        path: the path of the file, which may be a link.
        limit_bytes: larger files are refused without being read.

    Raises:
        DiffcleanError: the file is not a plain file, cannot be read, or is too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe of that name would wait for ever
            raise DiffcleanError(f"{path} is not a plain file.")
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise DiffcleanError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) > limit_bytes:
        raise DiffcleanError(f"{path} is larger than {limit_bytes / 2**20:.0f} MiB, the limit for such a file.")
    return data


def json_of(
    data: str | bytes, object_hook: ObjectHook | None = None, infinities: bool = False, file_names: bool = False
) -> Any:
    """Parse a JSON text.

    Args:
        data: the text, or its bytes in UTF-8.
        object_hook: as for `read_json`.
        infinities: as for `read_json`.
        file_names: whether to accept the halves of surrogate pairs that stand for the bytes of file names that are not
            UTF-8 (PEP 383). Files of diffclean that name folders have them.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or holds a number that is not finite or half of a
            character.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        constant = None if infinities else _no_number
        value = json.loads(text, parse_constant=constant, parse_float=_finite, object_hook=object_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    _check_depth(value)
    if "\\u" in text or not text.isascii():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape" if file_names else "strict")
        except UnicodeEncodeError:
            raise ValueError("it holds half of a surrogate pair, which is not a character") from None
    return value


def _check_depth(value: Any) -> None:
    """Refuse what is nested so deeply that copying or writing it could exceed Python's stack."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        children = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in children if isinstance(each, dict | list)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it holds {text[:40]}, which is too large for a number")
    return number
