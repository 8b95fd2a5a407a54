"""torch -> ONNX, a component at a time, and the check that both compute the same."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from diffclean.errors import DiffcleanError, MissingExtraError
from diffclean.families.base import Component, Port

if TYPE_CHECKING:
    from torch import Tensor

OPSET = 20
PARITY_LIMIT = 1e-4
"""Largest relative error (maximum norm) of an fp32 graph against torch."""


def example_inputs(ports: tuple[Port, ...], batch: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of a component: standard normal floats, uniform bytes."""
    import torch

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


def onnx_from_component(component: Component, path: Path) -> None:
    """Write `component` to `path` as ONNX with a dynamic batch axis.

    Raises:
        DiffcleanError: torch cannot export it.
    """
    import onnx
    import torch

    inputs = example_inputs(component.inputs, batch=2)
    batch = torch.export.Dim("batch", min=1, max=4096)
    path.parent.mkdir(parents=True, exist_ok=True)
    chatter = io.StringIO()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                component.module,
                tuple(inputs[port.name] for port in component.inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=[port.name for port in component.inputs],
                output_names=[port.name for port in component.outputs],
                dynamic_shapes=tuple({0: batch} for _ in component.inputs),
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        raise DiffcleanError(f"torch could not export {type(component.module).__name__} to ONNX: {error}") from error
    finally:
        quiet.setLevel(level)
    assert program is not None
    model = program.model_proto
    # Where a node came from (source lines of this machine) would make the bytes differ from place to place.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    onnx.save(model, path)


def parity_of_onnx(component: Component, path: Path, batch: int = 3) -> dict[str, float]:
    """Largest absolute and relative difference between torch and the ONNX graph on random inputs.

    Raises:
        DiffcleanError: the relative error is above `PARITY_LIMIT`.
    """
    import torch

    inputs = example_inputs(component.inputs, batch, seed=1)
    with torch.no_grad():
        expected = component.module(*(inputs[port.name] for port in component.inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = _run_reference(path, inputs)
    differences = [_difference(want, have) for want, have in zip(expected, found, strict=True)]
    absolute, relative = (max(kind) for kind in zip(*differences, strict=True))
    if relative > PARITY_LIMIT:
        raise DiffcleanError(
            f"{path.parent.name}: ONNX differs from torch by {relative:.1e} (at most {PARITY_LIMIT:.0e} expected).",
            "This is a fault of the export; please report it with the versions that `diffclean doctor` shows.",
        )
    return {"max_absolute": absolute, "max_relative": relative}


def _difference(want: Tensor, have: Tensor) -> tuple[float, float]:
    """Largest absolute and relative difference. What is not finite in one must not be in the other either."""
    import torch

    finite = want.isfinite()
    if want.dtype != have.dtype or want.shape != have.shape or not torch.equal(finite, have.isfinite()):
        return math.inf, math.inf
    if not finite.any():
        return 0.0, 0.0
    difference = float((want[finite].double() - have[finite].double()).abs().max())
    # A grey level may round the other way; it is an error of one in 255, not of the graph.
    if want.dtype == torch.uint8 and difference <= 1:
        return 0.0, 0.0
    return difference, difference / max(float(want[finite].double().abs().max()), 1e-12)


def _run_reference(path: Path, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Run a graph on whichever CPU runtime is installed, in fp32."""
    import torch

    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    try:
        import onnxruntime
    except ImportError:
        try:
            import openvino
        except ImportError:
            raise MissingExtraError("Neither onnxruntime nor openvino", "cpu") from None
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = compiled(arrays)
        return [torch.from_numpy(results[output]) for output in compiled.outputs]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(result) for result in session.run(None, arrays)]
