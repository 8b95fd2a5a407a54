"""Checks of ONNX graphs, which are read as data before any runtime opens them.

They hold for the graphs of engines and for classifiers alike. What only one of the two must be is checked by the rooms
`engine` and `classifiers`.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.hashes import is_inside
from diffclean.errors import DiffcleanError

if TYPE_CHECKING:
    import onnx

LARGEST_TENSOR = 2**28
"""The largest count of numbers in a tensor for one image: 1 GiB in fp32."""
_FIELDS = 1_000_000
"""The largest number of protobuf fields in a graph, weights not counted; one of a thousand nodes has about 50,000."""
_SPARE_BYTES = 64 * 2**20
"""The number of bytes that constants may unfold to, however small their files are."""
_DROPPED_NUMBERS = 1024
"""Constants with more numbers never say a shape, so they are left out where shapes are inferred."""
_UNBOUNDED = ("Loop", "Scan", "SequenceMap")


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a graph without its external weights, and refuse one that would be dangerous to run.

    Args:
        path: the file of the graph.

    Raises:
        DiffcleanError: the graph is damaged, has too many nodes, has nodes in a cycle or a loop that may never end, or
            has constants that are larger than their files or lie elsewhere than in its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        _check_fields(path)
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise DiffcleanError(f"{path} is damaged or is not an ONNX file.") from error
    if not model.graph.output:
        raise DiffcleanError(f"{path} is damaged or is not an ONNX file: it has no output.")
    for graph in graphs_of(model):
        _check_order(path, graph)
        if found := next((node.op_type for node in graph.node if node.op_type in _UNBOUNDED), None):
            raise DiffcleanError(f"{path} is refused: it has a {found}, which may run for ever.")
    _check_sizes(path, model)
    return model


def graphs_of(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph of a model, its functions, and the graphs inside of their nodes, at all levels of nesting."""
    graphs: list[Any] = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        yield graph
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            graphs += [each for each in (attribute.g, *attribute.graphs) if each.node]


def tensors_of(model: onnx.ModelProto) -> list[Any]:
    """Every constant of a model: its initializers and the tensors in attributes, at all levels of nesting."""
    found: list[Any] = []
    for graph in graphs_of(model):
        found += list(getattr(graph, "initializer", ()))
        for sparse in getattr(graph, "sparse_initializer", ()):
            found += [sparse.values, sparse.indices]
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            found += [attribute.t, *attribute.tensors]
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                found += [sparse.values, sparse.indices]
    return found


def check_shapes(path: Path, model: onnx.ModelProto, largest: int = LARGEST_TENSOR) -> None:
    """Refuse a graph that makes a tensor of extreme size, where its shape is known beforehand.

    Args:
        path: the file of the graph, for messages.
        model: the graph; its large constants are lost, since only their shapes are needed.
        largest: the largest count of numbers for one image; axes of unknown length count as one.

    Raises:
        DiffcleanError: names the tensor; or the shapes contradict each other.
    """
    from onnx import shape_inference

    for tensor in tensors_of(model):
        if math.prod(tensor.dims) > _DROPPED_NUMBERS:
            tensor.ClearField("raw_data")
    try:
        values = shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    except Exception as error:  # there are many kinds
        raise DiffcleanError(f"{path} is damaged: {(str(error).splitlines() or [''])[0]}") from error
    for value in values:
        numbers = math.prod(max(1, side.dim_value) for side in value.type.tensor_type.shape.dim)
        if numbers > largest:
            raise DiffcleanError(
                f"{path} is refused: it makes a tensor ({value.name}) of {numbers:,} numbers for each image; expected "
                f"are at most {largest:,}."
            )


def _check_fields(path: Path) -> None:
    """Count the fields in a file before protobuf makes objects of them, which take far more memory than their bytes.

    Only headers are read, so weights cost nothing.

    Raises:
        ValueError: the file is not protobuf.
    """
    from onnx import ModelProto

    fields = 0
    kinds: dict[str, dict[int, Any]] = {}  # the fields of each kind of message, to find those that are messages
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        waiting: list[tuple[int, int, Any]] = [(0, len(data), ModelProto.DESCRIPTOR)]
        while waiting:
            at, end, kind = waiting.pop()
            if (messages := kinds.get(kind.full_name)) is None:
                messages = {number: field.message_type for number, field in kind.fields_by_number.items()}
                kinds[kind.full_name] = messages
            while at < end:
                fields += 1
                if fields > _FIELDS:
                    raise DiffcleanError(f"{path} is refused: it has more than {_FIELDS:,} nodes and other fields.")
                tag, at = _varint(data, at)
                wire = tag & 7
                if wire == 0:
                    _, at = _varint(data, at)
                elif wire in (1, 5):
                    at += 8 if wire == 1 else 4
                elif wire == 2:
                    length, at = _varint(data, at)
                    if at + length > end:
                        raise ValueError("a message is cut off")
                    if (inner := messages.get(tag >> 3)) is not None:
                        waiting.append((at, at + length, inner))
                    at += length
                else:
                    raise ValueError("groups are not part of ONNX")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of protobuf's variable length that begins at `at`, and where it ends."""
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number is cut off")


def _check_sizes(path: Path, model: onnx.ModelProto) -> None:
    """Check that constants are no larger than their files, and that these are in the folder of the graph."""
    from onnx import TensorProto

    whole, files = 0, {path: path.stat().st_size}
    for tensor in tensors_of(model):
        file = path
        if tensor.data_location == TensorProto.EXTERNAL:
            file = _file_beside(path, tensor)
            files[file] = file.stat().st_size
        numbers = math.prod(max(0, side) for side in tensor.dims)
        if numbers > 8 * files[file]:  # types of less than a byte, and whole numbers that protobuf shortens, are small
            raise DiffcleanError(
                f"{path} is refused: its tensor {tensor.name} would have {numbers:,} numbers, but the file has only "
                f"{files[file]:,} bytes."
            )
        whole += numbers * _width(tensor.data_type)
    if whole > (allowed := 2 * sum(files.values()) + _SPARE_BYTES):
        raise DiffcleanError(
            f"{path} is refused: together its constants would have {whole:,} bytes; expected for files of this size "
            f"are at most {allowed:,}."
        )


def _file_beside(path: Path, tensor: Any) -> Path:
    """The file with the values of an external tensor, which must be a plain file in the folder of the graph."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    place = where.get("location", "")
    file = path.parent / place
    if not is_inside(place) or not file.is_file() or not file.resolve().is_relative_to(path.parent.resolve()):
        raise DiffcleanError(f"{path} keeps weights in {place!r}, which is not a file beside it.")
    for key in ("offset", "length"):
        if not (text := where.get(key, "0")).isascii() or not text.isdigit() or len(text) > 18:
            raise DiffcleanError(f"{path} is damaged: the {key} of its tensor {tensor.name} is {text!r}.")
    if int(where.get("offset", 0)) + int(where.get("length", 0)) > file.stat().st_size:
        raise DiffcleanError(f"{path} is damaged: its tensor {tensor.name} lies behind the end of {place}.")
    return file


def _width(data_type: int) -> int:
    """The bytes of a number of an ONNX type; one for those that are smaller, and for texts."""
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize)
    except (KeyError, TypeError, ValueError):
        return 1


def _check_order(path: Path, graph: Any) -> None:
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
