"""Finds the columns of images and labels in a table, and makes the tables of images that are written.

Hugging Face's `datasets` notes in the metadata of a schema which column holds images and what the classes are called.
These notes are read if they exist, and are always written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffclean.data.archive import Entry, Head
from diffclean.data.item import ReadError
from diffclean.data.json_file import json_of
from diffclean.data.keys import label_text, safe_text
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

KEY = "__key__"
"""The column of keys in tables that are written; `datasets` calls it so for WebDataset."""
_IMAGES = ("image", "img", "picture", "photo", "image_bytes", "bytes", "jpg", "png")
_LABELS = ("label", "labels", "class", "class_name", "category", "cls", "target")
_FEATURES = b"huggingface"
_IMAGE_NAME, _LABEL_NAME = b"diffclean.image", b"diffclean.label"
_ROWS, _BYTES = 1000, 32 * 2**20
"""Of a batch that is written."""
_SHOWN = 20


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Attributes:
        image: the column of images.
        label: the column of labels. None: there is none.
        names: the names of the classes that label numbers stand for. Empty: the labels are the names.
        others: the other columns, which are copied to the output, with metadata.
    """

    image: str
    label: str | None
    names: list[str]
    others: pa.Schema


def columns_of(schema: pa.Schema, where: object, label_from: str | None = None) -> Columns:
    """Find the columns.

    Args:
        schema: the schema of the table.
        where: the name of the table in messages.
        label_from: the column of labels. None: the column that looks like it.

    Raises:
        UsageError: there is no column `label_from`.
        DiffcleanError: no column holds images, or several may; several may hold labels.
    """
    features = _features(schema)
    image = _image(schema, features, where)
    label = _label(schema, features, where, label_from)
    names = features.get(label or "", {}).get("names")
    usable = isinstance(names, list) and all(isinstance(name, str) for name in names)
    others = [field for field in schema if field.name not in (image, label, KEY)]
    kept = {field.name: features[field.name] for field in others if field.name in features}
    metadata = {
        _IMAGE_NAME: image.encode(),
        _LABEL_NAME: (label or "label").encode(),
        _FEATURES: json.dumps(kept).encode(),
    }
    return Columns(image, label, _distinct(names) if usable and names else [], _schema(others, metadata))


def image_bytes(value: Any) -> bytes:
    """Return the encoded image in a cell; raises ReadError if there is none."""
    if isinstance(value, Mapping):
        if value.get("bytes") is None and value.get("path") is not None:
            raise ReadError(
                f"holds the path {safe_text(str(value['path']))[:80]!r} and no bytes; paths are not followed"
            )
        value = value.get("bytes")
    if not isinstance(value, bytes) or not value:
        raise ReadError("holds no image")
    return value


def written_schema(head: Head) -> pa.Schema:
    """Return the schema of a table that is written: image, label, key, and the other columns."""
    import pyarrow as pa

    metadata = head.fields.metadata or {}
    image = metadata.get(_IMAGE_NAME, b"image").decode()
    label = metadata.get(_LABEL_NAME, b"label").decode()
    features = json.loads(metadata.get(_FEATURES, b"{}")) | {image: {"_type": "Image"}}
    own = [pa.field(image, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if head.class_to_idx:
        own.append(pa.field(label, pa.int64()))
        features[label] = {"names": list(head.class_to_idx), "_type": "ClassLabel"}
    own.append(pa.field(KEY, pa.string()))
    taken = {field.name for field in own}
    others = [field.with_name(_free(field.name, taken)) for field in head.fields]
    features |= {field.name: _feature(field.type) for field in (*own, *others) if field.name not in features}
    ordered = {field.name: features[field.name] for field in (*own, *others) if features[field.name] is not None}
    return pa.schema([*own, *others], {_FEATURES: json.dumps({"info": {"features": ordered}}).encode()})


def written_batches(entries: Iterable[Entry], head: Head, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield batches of some rows each.

    Raises:
        DiffcleanError: a value in another column has a different type than those of the images before it.
    """
    some: list[Entry] = []
    size = 0
    for entry in entries:
        some.append(entry)
        size += len(entry.data)
        if len(some) >= _ROWS or size >= _BYTES:
            yield _batch(some, head, schema)
            some, size = [], 0
    if some:
        yield _batch(some, head, schema)


def _batch(entries: list[Entry], head: Head, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    own = len(schema) - len(head.fields)
    values: list[list[Any]] = [[{"bytes": entry.data, "path": _path(entry)} for entry in entries]]
    if head.class_to_idx:
        values.append([entry.number for entry in entries])
    values.append([entry.name for entry in entries])
    for source, field in zip(head.fields, list(schema)[own:], strict=True):
        values.append([_fitting(entry.about.get(source.name), field.type) for entry in entries])
    try:
        arrays = [pa.array(each, field.type) for each, field in zip(values, schema, strict=True)]
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DiffcleanError(
            f"What lies beside {entries[0].name} or one of the {len(entries) - 1} images after it does not fit into a "
            f"column: {str(error)[:200]}."
        ) from error
    return pa.record_batch(arrays, schema=schema)


def _path(entry: Entry) -> str:
    return f"{entry.name.rpartition('/')[2]}.{entry.extension}"


def _fitting(value: Any, type: pa.DataType) -> Any:
    """Decode the bytes of a text; if they are not UTF-8, the readable part is kept."""
    import pyarrow as pa

    return value.decode("utf-8", "replace") if isinstance(value, bytes) and pa.types.is_string(type) else value


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the notes of `datasets` on each column; empty if there are none that can be used."""
    try:
        found = json_of((schema.metadata or {}).get(_FEATURES, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    names = set(schema.names)
    usable = isinstance(found, dict)
    return {name: each for name, each in found.items() if name in names and isinstance(each, dict)} if usable else {}


def _image(schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], where: object) -> str:
    candidates = [field.name for field in schema if _may_hold_images(field.type)]
    said = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    usual = [name for name in _IMAGES if name in candidates]
    if len(said) == 1 or usual:
        return said[0] if len(said) == 1 else usual[0]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DiffcleanError(
            f"{where} has several columns that may hold images: {_named(candidates)}.",
            "Call the one that is meant `image`, or leave the others out.",
        )
    raise DiffcleanError(
        f"{where} has no column of images. Its columns: {_named([f'{f.name} ({f.type})' for f in schema])}.",
        "Expected a column of bytes, or of {bytes, path}, with encoded images. Paths and addresses are not followed.",
    )


def _may_hold_images(type: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(type):
        return type.get_field_index("bytes") >= 0 and _may_hold_images(type.field("bytes").type)
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def _label(
    schema: pa.Schema, features: Mapping[str, Mapping[str, Any]], where: object, label_from: str | None
) -> str | None:
    import pyarrow as pa

    if label_from is not None:
        if label_from not in schema.names:
            raise UsageError(
                f"{where} has no column {label_from!r}; there are: {_named(schema.names)}.",
                "Give the name of one as `label_from`.",
            )
        return label_from
    kinds = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    possible = [field.name for field in schema if any(is_one(field.type) for is_one in kinds)]
    usual = [name for name in _LABELS if name in possible]
    said = [name for name in possible if features.get(name, {}).get("_type") == "ClassLabel"]
    if not usual and len(said) > 1:
        raise DiffcleanError(
            f"{where} has several columns of labels: {_named(said)}.", f"Say which, for example: `label_from` {said[0]}"
        )
    return usual[0] if usual else said[0] if said else None


def _distinct(names: list[str]) -> list[str]:
    found: list[str] = []
    for number, name in enumerate(names):
        text = label_text(name) or f"class_{number}"
        found.append(f"{text}_{number}" if text in found else text)
    return found


def _schema(fields: list[pa.Field], metadata: dict[bytes, bytes]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(fields, metadata)


def _feature(type: pa.DataType) -> dict[str, Any] | None:
    """Return the name of a plain type in `datasets`, or None if `datasets` infers it."""
    import pyarrow as pa

    plain = pa.types.is_primitive(type) or pa.types.is_string(type) or pa.types.is_binary(type)
    simple = plain and not pa.types.is_temporal(type) and not pa.types.is_decimal(type)
    return (
        {
            "dtype": {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(type), str(type)),
            "_type": "Value",
        }
        if simple
        else None
    )


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _named(names: list[str]) -> str:
    shown = ", ".join(safe_text(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "") or "none"
