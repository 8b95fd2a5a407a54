"""Finds the variations that a run wrote, in any format, by their keys in the manifest."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from diffclean.data.item import Item
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.registry import FOLDER, FORMATS, open_sink, open_source
from diffclean.data.run_record import RunRecord, read_run
from diffclean.data.sources import Source
from diffclean.errors import DiffcleanError


def written_format(record: RunRecord) -> str:
    """The name of the format that a run writes; raises DiffcleanError if there is no such format."""
    name = record.identity.get("to", FOLDER)
    if not isinstance(name, str) or name not in FORMATS:
        raise DiffcleanError(
            f"The record of the run names the format {str(name)[:40]!a}, which this diffclean does not know.",
            "pip install --upgrade diffclean",
        )
    return name


def outputs_of(root: Path, keys: Container[str] | None = None) -> tuple[Source, dict[str, Item]]:
    """A finished run's output as a source, and where each variation is in it.

    Args:
        root: the folder that `variate` wrote.
        keys: of the variations that are wanted, as the manifest names them; None: all. Only they are remembered.

    Raises:
        DiffcleanError: the output cannot be read.
    """
    format = written_format(read_run(root))
    source = open_source(root)
    if format == FOLDER:
        return source, {item.key: item for item in source.stream() if keys is None or item.key in keys}
    sink = open_sink(root, format)
    assert isinstance(sink, PackedSink)
    assert isinstance(source, PackedSource)
    packed = {key: found for key, found in sink.packed().items() if keys is None or key in keys}
    source.also_known({key: part for key, (part, _) in packed.items()})
    return source, {key: item for key, (_, item) in packed.items()}
