"""Finds the variations that a run wrote, in any format, by their keys in the manifest."""

from __future__ import annotations

from pathlib import Path

from diffclean.data.item import Item
from diffclean.data.packed_sink import PackedSink
from diffclean.data.packed_source import PackedSource
from diffclean.data.registry import FOLDER, open_sink, open_source
from diffclean.data.run_record import read_run
from diffclean.data.sources import Source


def outputs_of(root: Path) -> tuple[Source, dict[str, Item]]:
    """Return the output of a finished run as a source, and where each variation is in it.

    Raises:
        DiffcleanError: the output cannot be read.
    """
    format = str(read_run(root).identity.get("to", FOLDER))
    source = open_source(root)
    if format == FOLDER:
        return source, {item.key: item for item in source.items()}
    sink = open_sink(root, format)
    assert isinstance(sink, PackedSink)
    assert isinstance(source, PackedSource)
    packed = sink.packed()
    source.also_known({key: part for key, (part, _) in packed.items()})
    return source, {key: item for key, (_, item) in packed.items()}
