"""Checks whether an ONNX graph may be run as a classifier, by reading it as data before a runtime opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import DiffcleanError
from diffclean.families.graphs import check_shapes, read_graph, tensors_of

if TYPE_CHECKING:
    import onnx

_INFERRED_BYTES = 2**29
"""The largest file whose shapes are inferred beforehand. Larger files are not small ones that unfold to a huge size."""


def check_graph(path: Path) -> None:
    """Refuse a graph that is damaged, may run for ever, would unfold to a huge size, or ends in probabilities.

    Raises:
        DiffcleanError: the message says which.
    """
    model = read_graph(path)
    _check_numbers(path, model)
    _check_ends_in_logits(path, model.graph)
    if path.stat().st_size <= _INFERRED_BYTES:
        check_shapes(path, model)


def _check_numbers(path: Path, model: onnx.ModelProto) -> None:
    """Check that weights can be read and are not NaN."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    for tensor in tensors_of(model):
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16) or 0 in tensor.dims:
            continue
        try:
            values = numpy_helper.to_array(tensor, str(path.parent))
        except Exception as error:  # there are many kinds, for example when sizes do not match
            raise DiffcleanError(f"{path} is damaged: its tensor {tensor.name} cannot be read.") from error
        if np.isnan(values).any():
            raise DiffcleanError(
                f"{path} is refused: its tensor {tensor.name} holds NaN, so its results would mean nothing.",
                "If its training diverged or was cut off, use an earlier state of it.",
            )


def _check_ends_in_logits(path: Path, graph: onnx.GraphProto) -> None:
    makers = {output: node for node in graph.node for output in node.output}
    last = makers.get(graph.output[0].name)
    while last is not None and last.op_type in ("Cast", "Identity") and last.input:
        last = makers.get(last.input[0])  # this ends, because there are no cycles
    if last is not None and last.op_type == "Softmax":
        raise DiffcleanError(
            f"{path} ends in a softmax; a classifier must give logits, to which the temperature is applied.",
            "Export it without the last softmax.",
        )
