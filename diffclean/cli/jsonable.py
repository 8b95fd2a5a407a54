"""Turn a verb's result into strict JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:
    """`value` with only what JSON knows; NaN and infinities, which it does not, become None."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")


def json_text(data: dict[str, Any]) -> str:
    """One JSON object, indented for the people who look at it all the same."""
    return json.dumps(plain(data), indent=2, allow_nan=False)
