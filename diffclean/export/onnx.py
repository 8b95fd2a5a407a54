"""Exports components from torch to ONNX, and checks that both compute the same."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffclean.engine.manifest import OPSET
from diffclean.engine.openvino import openvino_core
from diffclean.engine.precision import InPrecision, torch_dtype
from diffclean.errors import DiffcleanError, MissingExtraError
from diffclean.export.eight_bit import store_in_eight_bits
from diffclean.families.base import Component, Port

PARITY_LIMITS = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}
"""The largest relative error (maximum norm) of a graph against torch in fp32, by the precision of the graph."""
STORED_LIMITS = {"int8": 5e-2, "fp8": 1.5e-1}
"""The same for a graph whose large weights are stored in eight bits, by their format."""
_EXTERNAL_FROM_BYTES = 256 * 2**20
"""Larger weights go into a file beside the graph, because protobuf is limited to 2 GiB, and because large files are
mapped into memory in place of being parsed."""
_EXAMPLE_BATCH = 2
_CHECKED_BATCH = 3
_TRACED_UP_TO = 4
"""The largest batch in tracing. With larger batches, tracing would have to decide whether tensors exceed 2^31 numbers;
modules ask this only to choose a memory layout. The graph takes any batch."""
_LARGE_PARAMETERS, _LARGE_PORT = 500e6, 3 * 256 * 256
"""A component with more weights, or with larger pictures as inputs or outputs, is checked with a single image."""


def example_inputs(ports: tuple[Port, ...], batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs for a component: standard normal floats and uniform bytes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for port in ports:
        shape = (batch, *port.shape)
        if port.dtype == "uint8":
            inputs[port.name] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        elif port.shape:
            inputs[port.name] = torch.randn(shape, generator=generator)
        else:
            inputs[port.name] = torch.rand(shape, generator=generator)
    return inputs


def onnx_from_component(component: Component, path: Path, precision: str = "fp32", weights: str | None = None) -> None:
    """Write `component` to `path` as ONNX with a dynamic batch axis.

    Args:
        component: the component; its module is left in `precision`.
        path: the file to write; large weights are written beside it to `<name>.data`.
        precision: the precision that the graph computes in; its inputs and outputs keep the types of the component.
        weights: how large weights are stored, see `export.eight_bit`; None stands for the precision.

    Raises:
        DiffcleanError: torch cannot export it, or no weight of it is large.
    """
    dtype = torch_dtype(precision)
    module = component.module if dtype == torch.float32 else InPrecision(component.module, dtype)
    inputs = example_inputs(component.inputs, _EXAMPLE_BATCH)
    shapes: Any = tuple({0: torch.export.Dim("batch", min=1, max=_TRACED_UP_TO)} for _ in inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    chatter = io.StringIO()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs[port.name] for port in component.inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=[port.name for port in component.inputs],
                output_names=[port.name for port in component.outputs],
                # A module with a variable number of arguments has them in one tuple.
                dynamic_shapes=(shapes,) if isinstance(module, InPrecision) else shapes,
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        raise DiffcleanError(f"torch could not export {type(component.module).__name__} to ONNX: {error}") from error
    finally:
        quiet.setLevel(level)
    assert program is not None
    if weights is not None:
        store_in_eight_bits(program.model, weights, path.parent.name)
    _save(program.model, path)


def _save(model: Any, path: Path) -> None:
    """Write an ONNX model without the source lines, which would make its bytes differ between machines."""
    import onnx_ir

    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        graph.metadata_props.clear()
        values = [*graph.inputs, *graph.initializers.values()]
        doors = {value.name for value in (*graph.inputs, *graph.outputs)}
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            values += node.outputs
            for value in node.outputs:
                # An output of a node is named after torch's operation, and a port may be called `view` too.
                if value.name in doors and not value.is_graph_output():
                    value.name = f"{value.name}_inside"
        for value in values:
            value.metadata_props.clear()
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    external = f"{path.name}.data" if weights > _EXTERNAL_FROM_BYTES else None
    onnx_ir.save(model, path, external_data=external)
    # The caches of the exporter keep the graph alive; without this they would keep gigabytes of weights.
    for value in model.graph.initializers.values():
        value.const_value = None


def parity_batch(component: Component) -> int:
    """The number of images that a component is checked with, which is never the number that it was traced with."""
    parameters = sum(parameter.numel() for parameter in component.module.parameters())
    largest = max(math.prod(port.shape) for port in (*component.inputs, *component.outputs))
    return 1 if parameters > _LARGE_PARAMETERS or largest > _LARGE_PORT else _CHECKED_BATCH


def reference_outputs(component: Component, batch: int = _CHECKED_BATCH) -> list[Tensor]:
    """The outputs of torch for the example inputs that `parity_of_onnx` uses."""
    inputs = example_inputs(component.inputs, batch, seed=1)
    with torch.no_grad():
        expected = component.module(*(inputs[port.name] for port in component.inputs))
    return list(expected) if isinstance(expected, tuple) else [expected]


class OverflowInHalfError(DiffcleanError):
    """A graph in half precision gives values that are not finite, where torch in fp32 gives finite ones."""


def checked_reference(component: Component, batch: int, name: str, model: str) -> list[Tensor]:
    """`reference_outputs` of a component of unknown origin, which may not work at all.

    Raises:
        DiffcleanError: torch cannot run it, or its outputs are not finite, so that no engine made from it could work.
    """
    try:
        expected = reference_outputs(component, batch)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(
            f"The {name} of {model} cannot be run: {reason}",
            "Its parts may belong to different models or may have been changed. Another `size` may help; --traceback "
            "shows where it fails.",
        ) from error
    for port, output in zip(component.outputs, expected, strict=True):
        if not _flags(port.name, output):
            raise DiffcleanError(
                f"The {name} of {model} gives values that are not finite ({port.name}) for random inputs, so it cannot "
                "be used in any precision.",
                "Copy its weights again, or use another model.",
            )
    return expected


def parity_of_onnx(
    component: Component,
    path: Path,
    precision: str = "fp32",
    expected: Sequence[Tensor] | None = None,
    batch: int = _CHECKED_BATCH,
    weights: str | None = None,
) -> dict[str, float]:
    """The largest absolute and relative difference between torch in fp32 and the ONNX graph, on random inputs.

    Args:
        component: the component that the graph was made from.
        path: the file of the graph.
        precision: the precision of the graph.
        expected: `reference_outputs`, needed if the module is no longer in fp32.
        batch: the number of images.
        weights: how large weights of the graph are stored, see `export.eight_bit`.

    Raises:
        DiffcleanError: the relative error is above `PARITY_LIMITS`, or `STORED_LIMITS` with weights in eight bits.
    """
    expected = reference_outputs(component, batch) if expected is None else expected
    found = _run_reference(path, example_inputs(component.inputs, batch, seed=1), precision)
    differences = [_difference(want, have) for want, have in zip(expected, found, strict=True)]
    absolute, relative = (max(kind) for kind in zip(*differences, strict=True))
    limit = PARITY_LIMITS[precision]
    if precision != "fp32" and not all(
        _flags(port.name, have) for port, have in zip(component.outputs, found, strict=True)
    ):
        raise OverflowInHalfError(
            f"{path.parent.name} gives values that are not finite in {precision}, but not in fp32.",
            "Export it in another precision: `precision` bf16, or fp32.",
        )
    if weights is not None and relative > max(limit, STORED_LIMITS[weights]):
        raise DiffcleanError(
            f"{path.parent.name}: with weights in {weights} its results differ from torch by {relative:.1e} (expected: "
            f"at most {STORED_LIMITS[weights]:.1e}).",
            "This model does not bear it. Use the other format of `weights`, or leave it out.",
        )
    if weights is None and relative > limit:
        raise DiffcleanError(
            f"{path.parent.name}: ONNX differs from torch by {relative:.1e} (expected: at most {limit:.0e}).",
            "This is an error in the export; please report it with the versions that `diffclean doctor` shows.",
        )
    return {"max_absolute": absolute, "max_relative": relative}


def _flags(name: str, output: Tensor) -> bool:
    """Whether an output is finite everywhere; the output called `finite` holds this flag itself."""
    return bool((output if name == "finite" else output.isfinite()).all())


def _difference(want: Tensor, have: Tensor) -> tuple[float, float]:
    """The largest absolute and relative difference; both must be finite in the same places."""
    finite = want.isfinite()
    if want.dtype != have.dtype or want.shape != have.shape or not torch.equal(finite, have.isfinite()):
        return math.inf, math.inf
    if not finite.any():
        return 0.0, 0.0
    difference = float((want[finite].double() - have[finite].double()).abs().max())
    # A grey level may be rounded the other way, which is a difference of one in 255 and not an error of the graph.
    if want.dtype == torch.uint8 and difference <= 1:
        return 0.0, 0.0
    return difference, difference / max(float(want[finite].double().abs().max()), 1e-12)


def _run_reference(path: Path, inputs: dict[str, Tensor], precision: str) -> list[Tensor]:
    """Run a graph as exactly as possible on an installed CPU runtime that supports its precision."""
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    # ONNX Runtime on a CPU has no bf16.
    run = [_run_openvino] if precision == "bf16" else [_run_onnxruntime, _run_openvino]
    for each in run:
        with contextlib.suppress(ImportError):
            return [torch.from_numpy(result) for result in each(path, arrays)]
    raise MissingExtraError("OpenVINO" if precision == "bf16" else "Neither onnxruntime nor openvino", "cpu")


def _run_onnxruntime(path: Path, arrays: dict[str, Any]) -> Sequence[Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")  # as `runtime.onnxruntime` does
    if any(path.parent.glob(f"{path.name}.*")):  # large weights must not be copied to be packed or widened to fp32
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, arrays)


def _run_openvino(path: Path, arrays: dict[str, Any]) -> Sequence[Any]:
    exactly = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = openvino_core().compile_model(path, "CPU", exactly)
    results = compiled(arrays)
    return [results[output] for output in compiled.outputs]
