"""Checks whether an ONNX graph may be run as a classifier, by reading it as data before a runtime opens it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.hashes import is_inside
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import tensors_of

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**28
"""The largest count of numbers in a tensor for one image: 1 GiB in fp32."""
_INFERRED_BYTES = 2**29
"""The largest file whose shapes are inferred beforehand. Larger files are not small ones that unfold to a huge size."""
_UNBOUNDED = ("Loop", "Scan", "SequenceMap")


def check_graph(path: Path) -> None:
    """Refuse a graph that is damaged, may run for ever, would unfold to a huge size, or ends in probabilities.

    Raises:
        DiffcleanError: the message says which.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise DiffcleanError(f"{path} is damaged or is not an ONNX file.") from error
    if not model.graph.output:
        raise DiffcleanError(f"{path} is damaged or is not an ONNX file: it has no output.")
    _check_order(path, model.graph)
    _check_sizes(path, model)
    _check_nodes(path, model)
    _check_ends_in_logits(path, model.graph)


def _check_sizes(path: Path, model: onnx.ModelProto) -> None:
    """Check that weights are finite, no larger than their file, and in the folder of the graph."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    whole = path.stat().st_size
    for tensor in tensors_of(model):
        numbers = math.prod(max(0, side) for side in tensor.dims)
        where = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location == TensorProto.EXTERNAL:
            place = where.get("location", "")
            if not is_inside(place) or not (path.parent / place).is_file() or (path.parent / place).is_symlink():
                raise DiffcleanError(f"{path} keeps weights in {place!r}, which is not a file beside it.")
            room = (path.parent / place).stat().st_size
        else:
            room = whole
        if numbers > 8 * room:
            raise DiffcleanError(
                f"{path} is refused: its tensor {tensor.name} would have {numbers:,} numbers, but the file has only "
                f"{room:,} bytes."
            )
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16) and numbers:
            try:
                values = numpy_helper.to_array(tensor, str(path.parent))
            except Exception as error:  # there are many kinds, for example when sizes do not match
                raise DiffcleanError(f"{path} is damaged: its tensor {tensor.name} cannot be read.") from error
            if np.isnan(values).any():
                raise DiffcleanError(
                    f"{path} is refused: its tensor {tensor.name} holds NaN, so its results would mean nothing.",
                    "If its training diverged or was cut off, use an earlier state of it.",
                )


def _check_nodes(path: Path, model: onnx.ModelProto) -> None:
    """Refuse loops, whose number of rounds a single number decides, and tensors of extreme size."""
    import onnx

    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        for node in graphs.pop().node:
            if node.op_type in _UNBOUNDED:
                raise DiffcleanError(f"{path} has a {node.op_type}, which may run for ever; no classifier needs one.")
            graphs += [each for a in node.attribute for each in (a.g, *a.graphs) if each.node]
    if path.stat().st_size > _INFERRED_BYTES:
        return
    try:
        values = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    except Exception as error:  # there are many kinds
        raise DiffcleanError(f"{path} is damaged: {(str(error).splitlines() or [''])[0]}") from error
    for value in values:
        numbers = math.prod(max(1, side.dim_value) for side in value.type.tensor_type.shape.dim)
        if numbers > _LARGEST:
            raise DiffcleanError(f"{path} is refused: it makes a tensor ({value.name}) of {numbers:,} numbers.")


def _check_order(path: Path, graph: onnx.GraphProto) -> None:
    """Refuse cycles: run through the nodes that have all inputs, one by one, until none is left."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    users: dict[int, list[int]] = {}
    waits = [0] * len(graph.node)
    for index, node in enumerate(graph.node):
        for maker in {makers[name] for name in node.input if name in makers}:
            users.setdefault(maker, []).append(index)
            waits[index] += 1
    ready = [index for index, count in enumerate(waits) if not count]
    done = 0
    while ready:
        done += 1
        for user in users.get(ready.pop(), ()):
            waits[user] -= 1
            if not waits[user]:
                ready.append(user)
    if done < len(graph.node):
        raise DiffcleanError(f"{path} is damaged: {len(graph.node) - done} of its nodes form a cycle.")


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
