"""What all results have in common: how they become JSON, or a table.

A result is a frozen dataclass whose fields have the names that `--json` prints. The metadata of a field say when JSON
omits it: always (`KEPT_BACK`), or if there was nothing to measure (`WHERE_MEASURED`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    from pandas import DataFrame

WHERE_MEASURED: Mapping[str, str] = {"json": "where not None"}
"""`metadata` of a field that is None if there was nothing to measure; JSON then omits it."""
KEPT_BACK: Mapping[str, str] = {"json": "never"}
"""`metadata` of a field that JSON always omits."""


def plain(value: Any) -> Any:
    """Convert `value` into types that JSON knows.

    NaN and infinities, which JSON does not know, become None. A dataclass becomes an object with its fields, or the
    result of its method `for_json` if it has one.

    Raises:
        TypeError: a value has no JSON form.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object(value)
    if hasattr(value, "tolist"):  # scalars and arrays of numpy and torch
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def _object(value: Any) -> Any:
    if hasattr(value, "for_json"):
        return plain(value.for_json())
    found = {}
    for field in dataclasses.fields(value):
        item, how = getattr(value, field.name), dict(field.metadata)
        if how != KEPT_BACK and not (how == WHERE_MEASURED and item is None):
            found[field.name] = plain(item)
    return found


def json_text(data: Any) -> str:
    """One JSON object, indented for people who read it."""
    return json.dumps(plain(data), indent=2, allow_nan=False)


def table(rows: Iterable[Any]) -> DataFrame:
    """Rows as a pandas table.

    Args:
        rows: dictionaries or dataclasses.

    Raises:
        DiffcleanError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise DiffcleanError("A table needs pandas, which is not installed.", "pip install pandas") from error
    return pandas.DataFrame([row if isinstance(row, Mapping) else _shallow(row) for row in rows])


def _shallow(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
