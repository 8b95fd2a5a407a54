"""Checks the graphs of an engine, which may come from anywhere, before a runtime opens them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from diffclean.errors import DiffcleanError
from diffclean.families.graphs import LARGEST_TENSOR, check_shapes, read_graph

_OWN_DOMAINS = ("", "ai.onnx")
_PIXELS_PER_TOKEN, _HEADS = 8, 16
"""Of attention: its tables have heads x tokens x tokens numbers, and grow with the fourth power of the side."""
_HINT = "Export the model again: diffclean export MODEL."


def check_graphs(paths: Iterable[Path], image_size: int, opset: int) -> None:
    """Refuse graphs that diffclean never exports, and that would harm the machine that runs them.

    External weights are not read.

    Args:
        paths: the graphs of an engine, whose files were compared with their hashes.
        image_size: the side of the square, in pixels.
        opset: the latest ONNX opset that an export writes.

    Raises:
        DiffcleanError: names the graph, what was found, and what was expected.
    """
    largest = max(LARGEST_TENSOR, _HEADS * (image_size // _PIXELS_PER_TOKEN) ** 4)
    for path in paths:
        try:
            _check_graph(path, largest, opset)
        except DiffcleanError as error:
            raise DiffcleanError(error.message, _HINT) from error


def _check_graph(path: Path, largest: int, opset: int) -> None:
    model = read_graph(path)
    for each in model.opset_import:
        if each.domain not in _OWN_DOMAINS:
            raise DiffcleanError(
                f"{path} is refused: it uses operators of the domain {each.domain!r}; expected are ONNX's own."
            )
        if not 1 <= each.version <= opset:
            raise DiffcleanError(
                f"{path} is refused: it has the ONNX opset {each.version}; expected is at most {opset}."
            )
    if model.functions:
        raise DiffcleanError(f"{path} is refused: it defines functions ({model.functions[0].name}); expected are none.")
    for node in model.graph.node:
        if node.domain not in _OWN_DOMAINS:
            raise DiffcleanError(
                f"{path} is refused: it has a {node.op_type} of the domain {node.domain!r}; expected are ONNX's own "
                "operators."
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise DiffcleanError(
                f"{path} is refused: its {node.op_type} has a graph inside; expected are only nodes without one."
            )
    check_shapes(path, model, largest)
