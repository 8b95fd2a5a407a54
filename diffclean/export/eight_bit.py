"""Stores the large weights of a denoiser in eight bits (`export --weights`), with a scale for each output channel.

A graph then holds `DequantizeLinear(weight in int8 or fp8, scales)` where it held the weight. It computes in its own
precision as before; only the memory of the weights, and the time that reading them takes, become smaller. This is the
form that ONNX calls weight-only quantisation and TensorRT explicit quantisation. No activation is quantised, so no
images are needed to measure ranges.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffclean.engine.manifest_check import STORED
from diffclean.errors import DiffcleanError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

log = logging.getLogger(__name__)

QUANTIZED = "unet"
"""The component whose weights are stored in eight bits: the denoiser, which has most of the weights and is run in every
step. The autoencoder and the encoders of the source stay as they are."""
ENDS = ("sample", "timestep")
"""The inputs of the denoiser that a small error would travel from through the whole network."""
LEAST_NUMBERS = 4096
"""A weight with fewer numbers stays as it is: it would save nothing."""

_LARGEST = {"int8": 127.0, "fp8": 448.0}


@dataclass(frozen=True)
class _Use:
    """A layer that multiplies by a constant weight.

    Attributes:
        node: the layer.
        weight: the weight.
        axis: the axis of the weight that is the layer's output channels.
    """

    node: ir.Node
    weight: ir.Value
    axis: int


def check_stored(weights: str | None) -> None:
    """Refuse an unknown format.

    Raises:
        UsageError: `weights` is neither None nor one of `STORED`.
    """
    if weights not in (None, *STORED):
        raise UsageError(
            f"`weights` must be {' or '.join(STORED)}, not {weights!r}.", "Leave it out for the precision."
        )


def store_in_eight_bits(model: ir.Model, weights: str, name: str) -> None:
    """Replace the large weights of a graph by weights in eight bits, which are computed when the graph is saved.

    A weight is replaced if a `Conv`, `Gemm` or `MatMul` multiplies by it, if it has at least `LEAST_NUMBERS` numbers,
    and if none of its layers is the first that `ENDS` meet, or the last before an output.

    Args:
        model: the graph, which is changed. One weight at a time is copied while it is saved.
        weights: one of `STORED`.
        name: the name of the component, for messages.

    Raises:
        DiffcleanError: no weight can be replaced.
    """
    uses = {id(use.node): use for node in model.graph for use in _uses_of(node)}
    ends = {id(node) for node in _ends(model.graph, uses)}
    by_weight: dict[str, list[_Use]] = {}
    for use in uses.values():
        by_weight.setdefault(str(use.weight.name), []).append(use)
    replaced = 0
    for each in by_weight.values():
        if _is_fit(each, ends):
            replaced += _numbers(each[0].weight)
            _replace(model.graph, each, weights)
    numbers = sum(map(_numbers, model.graph.initializers.values()))
    if not replaced:
        raise DiffcleanError(
            f"The {name} has no layer, other than its first and its last, with a weight of at least {LEAST_NUMBERS:,} "
            f"numbers, so nothing of it would be stored in {weights}.",
            "Leave `weights` out: the model is small as it is.",
        )
    log.info("Of the %s, %.1f %% of all numbers are stored in %s.", name, 100 * replaced / numbers, weights)


def _uses_of(node: ir.Node) -> Iterable[_Use]:
    """The node as a layer with a constant weight; nothing if it is none."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        return
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.const_value is None:
        return
    rank = len(weight.const_value.shape)
    if (rank < 3) if node.op_type == "Conv" else (rank != 2):
        return
    transposed = node.attributes.get("transB")
    rows = node.op_type == "Conv" or (transposed is not None and transposed.as_int() == 1)
    yield _Use(node, weight, 0 if rows else 1)


def _is_fit(uses: list[_Use], ends: set[int]) -> bool:
    """Whether a weight can be replaced in all its layers."""
    weight = uses[0].weight
    everywhere = len(uses) == len(weight.uses()) and len({use.axis for use in uses}) == 1
    is_float = weight.const_value is not None and weight.const_value.dtype.is_floating_point()
    inner = not any(id(use.node) in ends for use in uses)
    return everywhere and is_float and inner and not weight.is_graph_output() and _numbers(weight) >= LEAST_NUMBERS


def _numbers(value: ir.Value) -> int:
    return math.prod(value.const_value.shape.numpy()) if value.const_value is not None else 0


def _ends(graph: ir.Graph, layers: dict[int, _Use]) -> list[ir.Node]:
    """The first layers on all ways from `ENDS`, and the last layers on all ways to an output."""
    first = _nearest((value for value in graph.inputs if value.name in ENDS), _readers, layers)
    return first + _nearest(graph.outputs, _maker, layers)


def _readers(value: ir.Value) -> list[tuple[ir.Node, list[ir.Value]]]:
    return [(node, list(node.outputs)) for node in value.consumers()]


def _maker(value: ir.Value) -> list[tuple[ir.Node, list[ir.Value]]]:
    node = value.producer()
    return [] if node is None else [(node, [each for each in node.inputs if each is not None])]


def _nearest(values: Iterable[ir.Value], step: Callable[..., Any], layers: dict[int, _Use]) -> list[ir.Node]:
    """The layers that are met first from some values, in the direction of `step`."""
    waiting, seen, found = list(values), set[int](), []
    while waiting:
        for node, beyond in step(waiting.pop()):
            if id(node) in seen:
                continue
            seen.add(id(node))
            if id(node) in layers:
                found.append(node)
            else:
                waiting += beyond
    return found


def _replace(graph: ir.Graph, uses: list[_Use], weights: str) -> None:
    """Have the layers read a weight through a `DequantizeLinear`, which stands before the first of them."""
    import onnx_ir as ir

    weight, axis = uses[0].weight, uses[0].axis
    tensor, name = weight.const_value, str(weight.name)
    assert tensor is not None
    kind, shape = ir.DataType.INT8 if weights == "int8" else ir.DataType.FLOAT8E4M3FN, ir.Shape(tensor.shape.numpy())
    scales = scales_of(tensor.numpy(), axis, weights)
    lazy = ir.LazyTensor(lambda: ir.tensor(rounded(tensor.numpy(), scales, axis, weights)), kind, shape)
    inputs = [_constant(graph, f"{name}_{weights}", lazy), _constant(graph, f"{name}_scale", ir.tensor(scales))]
    restored = ir.Value(name=f"{name}_restored", shape=shape, type=ir.TensorType(tensor.dtype))
    node = ir.Node("", "DequantizeLinear", inputs, [ir.AttrInt64("axis", axis)], outputs=[restored])
    users = {id(use.node) for use in uses}
    graph.insert_before(next(each for each in graph if id(each) in users), node)
    weight.replace_all_uses_with(restored)
    del graph.initializers[name]


def _constant(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new constant of the graph."""
    import onnx_ir as ir

    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def scales_of(weight: NDArray[Any], axis: int, weights: str) -> NDArray[Any]:
    """The scale of each output channel: its largest absolute value over the largest number of the format.

    The scales are rounded up to the type of the weight, so that no number of a channel is cut off.

    Args:
        weight: the weight, floating-point.
        axis: the axis of the output channels.
        weights: one of `STORED`.

    Returns:
        (channels,) of the type of the weight, above 0.
    """
    others = tuple(each for each in range(weight.ndim) if each != axis)
    reach = np.abs(weight).max(axis=others).astype(np.float32)
    scales = (reach / _LARGEST[weights]).astype(weight.dtype)
    low = scales.astype(np.float32) * np.float32(_LARGEST[weights]) < reach
    scales[low] = np.nextafter(scales[low], np.array(np.inf, weight.dtype))
    scales[reach == 0] = 1
    return scales


def rounded(weight: NDArray[Any], scales: NDArray[Any], axis: int, weights: str) -> NDArray[Any]:
    """A weight over its scales, rounded to the format (to even numbers at ties), of the same shape."""
    import ml_dtypes

    along = [-1 if each == axis else 1 for each in range(weight.ndim)]
    steps = weight.astype(np.float32) / scales.astype(np.float32).reshape(along)
    np.clip(steps, -_LARGEST[weights], _LARGEST[weights], out=steps)
    return np.rint(steps).astype(np.int8) if weights == "int8" else steps.astype(ml_dtypes.float8_e4m3fn)
