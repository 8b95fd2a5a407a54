"""A graph with the layers of a denoiser, some of them large, which is made in no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from diffclean.engine.manifest import ComponentEntry
from diffclean.families.base import Port

SIGNATURE = ComponentEntry(
    (Port("sample", "float32", (16, 8, 8)), Port("timestep", "float32", ())),
    (Port("predicted", "float32", (16, 8, 8)),),
)
FLOATS = {
    "fp32": (TensorProto.FLOAT, np.float32),
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
SHAPES = {
    "enter": (64, 16, 3, 3),
    "time": (64, 64),
    "widen": (4096, 64),
    "narrow": (64, 4096),
    "conv": (64, 64, 3, 3),
    "small": (64, 1, 3, 3),
    "matmul": (64, 64),
    "shared": (64, 64),  # something else reads it, too
    "leave": (16, 64, 3, 3),
}


def denoiser(path: Path, precision: str) -> dict[str, np.ndarray]:
    """A graph with the layers of a denoiser, and its weights."""
    kind, dtype = FLOATS[precision]
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])) for name, shape in SHAPES.items()}
    weights["conv"][3] = 0  # a channel that does nothing
    weights["rates"] = rng.standard_normal(64)
    weights = {name: weight.astype(dtype) for name, weight in weights.items()}
    shapes = {"column": [-1, 1], "square": [-1, 64, 1, 1], "tokens": [0, 64, 64], "places": [0, 64, 8, 8]}

    def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs.split(), [output], **attributes)

    nodes = [
        node("Cast", "timestep", "t1", to=kind),
        node("Reshape", "t1 column", "t2"),
        node("Mul", "t2 rates", "t3"),
        node("Gemm", "t3 time", "t4", transB=1),
        node("Tanh", "t4", "t5"),
        node("Gemm", "t5 widen", "t6", transB=1),
        node("Gemm", "t6 narrow", "t7", transB=1),
        node("Reshape", "t7 square", "t8"),
        node("Cast", "sample", "s1", to=kind),
        node("Conv", "s1 enter", "s2", pads=[1] * 4),
        node("Add", "s2 t8", "s3"),
        node("Conv", "s3 conv", "s4", pads=[1] * 4),
        node("Conv", "s4 small", "s5", pads=[1] * 4, group=64),
        node("Reshape", "s5 tokens", "s6"),
        node("MatMul", "s6 matmul", "s7"),
        node("MatMul", "s7 shared", "s8"),
        node("ReduceMean", "shared", "mean", keepdims=0),
        node("Add", "s8 mean", "s9"),
        node("Reshape", "s9 places", "s10"),
        node("Conv", "s10 leave", "s11", pads=[1] * 4),
        node("Cast", "s11", "predicted", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "denoiser",
        [
            helper.make_tensor_value_info(port.name, TensorProto.FLOAT, ("batch", *port.shape))
            for port in SIGNATURE.inputs
        ],
        [helper.make_tensor_value_info("predicted", TensorProto.FLOAT, ("batch", 16, 8, 8))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()]
        + [numpy_helper.from_array(np.array(value), name) for name, value in shapes.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return weights
