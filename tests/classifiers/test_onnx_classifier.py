from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from diffclean.classifiers import loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import IMAGENET_MEAN, IMAGENET_STD
from diffclean.errors import DiffcleanError, UsageError

CPU = torch.device("cpu")
CLASSES = {"zebra": 0, "ant": 1, "cat": 2}
DATA = {"ant": 0, "cat": 1, "zebra": 2}
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def averages(path: Path, shape: tuple[Any, ...] = ("n", 3, 16, 16), last: str | None = None) -> Path:
    """A graph whose logits are the mean of each channel; `last` is one or more operators at its end."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
    ]
    operators = (last or "Identity").split(", ")
    names = ["flat", *(f"y{number}" for number in range(1, len(operators))), "y"]
    nodes += [helper.make_node(name, names[at : at + 1], names[at + 1 : at + 2]) for at, name in enumerate(operators)]
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, (shape[0], shape[1]))
    graph = helper.make_graph(nodes, "means", [takes], [gives])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", ["n", 2])
def test_anybodys_graph_sees_what_the_options_say(batch: str | int, tmp_path: Path) -> None:
    path = averages(tmp_path / "t.onnx", (batch, 3, 16, 16))
    found = loading.load(ClassifierFile(path, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)), DATA, CPU)
    expected = (IMAGES.mean((2, 3)) - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 1.0, 2.0])
    assert torch.allclose(found.logits(IMAGES), expected, atol=1e-5)
    assert (found.class_to_idx, found.arch, found.size) == (DATA, None, (16, 16))
    usual = loading.load(ClassifierFile(path), DATA, CPU).logits(IMAGES)
    assert torch.allclose(usual, (IMAGES.mean((2, 3)) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD))


def test_a_graph_for_any_size_takes_the_one_that_is_told(tmp_path: Path) -> None:
    path = averages(tmp_path / "t.onnx", ("n", 3, "h", "w"))
    assert loading.load(ClassifierFile(path), DATA, CPU).size is None
    assert loading.load(ClassifierFile(path, size=20), DATA, CPU).size == (20, 20)


@pytest.mark.parametrize(
    ("shape", "last", "message"),
    [
        (("n", 16, 16, 3), None, r"(?s)\(batch, 3, height, width\).*NCHW"),
        (("n", 3), None, "does not take images"),
        (("n", 3, 16, 16), "Softmax", r"(?s)ends in a softmax.*without the last softmax"),
        (("n", 3, 16, 16), "Softmax, Identity", "ends in a softmax"),
    ],
)
def test_graphs_that_are_no_teachers(shape: tuple[Any, ...], last: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.onnx"
    if len(shape) == 2:
        node = helper.make_node("Identity", ["x"], ["y"])
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
        graph = helper.make_graph([node], "g", [ports[0]], [ports[1]])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    else:
        averages(path, shape, last)
    with pytest.raises(DiffcleanError, match=message):
        loading.load(ClassifierFile(path), DATA, CPU)


def test_what_a_graph_says_itself_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Leave out `classifier_arch`, `classifier_size`"):
        loading.load(ClassifierFile(averages(tmp_path / "t.onnx"), arch="tiny", size=32), DATA, CPU)


def test_a_graph_for_other_classes(tmp_path: Path) -> None:
    found = loading.load(ClassifierFile(averages(tmp_path / "t.onnx")), {"a": 0, "b": 1}, CPU)
    with pytest.raises(DiffcleanError, match=r"(?s)shape \(5, 3\); expected \(5, 2\).*`classifier_classes`"):
        found.logits(IMAGES)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_damaged_graph(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.onnx").write_bytes(content)
    with pytest.raises(DiffcleanError, match=r"t\.onnx is damaged or is not an ONNX file"):
        loading.load(ClassifierFile(tmp_path / "t.onnx"), DATA, CPU)
