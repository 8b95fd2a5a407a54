"""Reads dataclasses from the JSON of `results.plain` and checks every type: anyone may have written the file."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def from_json(kind: type[T], content: Any) -> T:
    """Make a dataclass from JSON.

    Fields may be int, float, str, bool, Any, another dataclass, `X | None`, `tuple[X, ...]`, `list[X]` or
    `Mapping[str, X]`. A missing field gets its default, or None if its type allows it. A float that is null in the JSON
    becomes NaN, because JSON cannot express NaN.

    Raises:
        ValueError: a value has a wrong type; the message names the field and what was expected there.
    """
    made: T = _built(kind, content, "")
    return made


def _built(kind: Any, content: Any, where: str) -> Any:
    if kind is Any:
        return content
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (only,) = (each for each in inner if each is not type(None))
        return None if content is None else _built(only, content, where)
    if origin in (tuple, list):
        rows = _expected(list, content, where)
        return origin(_built(inner[0], row, f"{where}[{number}]") for number, row in enumerate(rows))
    if origin in (Mapping, dict):
        return {name: _built(inner[1], value, f"{where}.{name}") for name, value in _object(content, where).items()}
    if is_dataclass(kind):
        return _dataclass(kind, content, where)
    if kind is float:
        return math.nan if content is None else _number(content, where)
    return _expected(kind, content, where)


def _number(content: Any, where: str) -> float:
    try:
        return float(_expected((int, float), content, where))
    except OverflowError:
        raise ValueError(f"{where or 'it'} is too large for a number") from None


def _dataclass(kind: Any, content: Any, where: str) -> Any:
    given, wanted = _object(content, where), _types_of(kind)
    if unknown := given.keys() - wanted.keys():
        raise ValueError(f"{where or 'it'} holds {min(unknown)!a}, which does not belong there")
    values = {name: _built(wanted[name], value, f"{where}.{name}".lstrip(".")) for name, value in given.items()}
    for field in fields(kind):
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{where or 'it'} lacks {field.name}")
    return kind(**values)


@cache
def _types_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _object(content: Any, where: str) -> dict[str, Any]:
    found: dict[str, Any] = _expected(dict, content, where)
    return found


def _expected(kind: Any, content: Any, where: str) -> Any:
    """Return `content` if it has that type. True does not count as a number."""
    if not isinstance(content, kind) or (isinstance(content, bool) and kind is not bool):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{where or 'it'} should be {names} and is {type(content).__name__}")
    return content
