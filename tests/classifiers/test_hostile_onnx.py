"""ONNX classifiers that an attacker made: a message before a runtime opens them, and no hang."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from diffclean.classifiers import loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.errors import DiffcleanError

CPU = torch.device("cpu")
DATA = {"ant": 0, "cat": 1, "zebra": 2}
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def graph(shape: tuple[Any, ...] = ("n", 3, 16, 16)) -> onnx.ModelProto:
    """A good classifier: its logits are the mean of each channel."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Flatten", ["m"], ["y"])]
    ports = [helper.make_tensor_value_info(*port) for port in (("x", 1, shape), ("y", 1, (shape[0], 3)))]
    made = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def read(model: onnx.ModelProto, folder: Path) -> loading.LoadedClassifier:
    onnx.save(model, folder / "t.onnx")
    return loading.load(ClassifierFile(folder / "t.onnx", mean=(0, 0, 0), std=(1, 1, 1)), DATA, CPU)


def body() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Identity", ["x"], ["inside"])], "body", [], [value])


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"])])


def cycle_of_the_last(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = "again"
    model.graph.node.append(helper.make_node("Identity", ["y"], ["again"]))


def own_input(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["self"], ["self"]))


def loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body()))


def loop_in_a_branch(model: onnx.ModelProto) -> None:
    inner = body()
    inner.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body()))
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner, else_branch=body()))


def declared(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20]))


def intermediate(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**20, 2**20]), "sides"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["sides"], ["unfolded"]))


def repeated(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2**16, 2**16]), "times"))
    model.graph.node.append(helper.make_node("Tile", ["x", "times"], ["tiled"]))


def outside(location: str, offset: int | None = None) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = numpy_helper.from_array(np.zeros(16, np.float32), "outside")
        set_external_data(tensor, location, offset)
        tensor.ClearField("raw_data")
        model.graph.initializer.append(tensor)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cycle, "2 of its nodes form a cycle"),
        (cycle_of_the_last, "2 of its nodes form a cycle"),
        (own_input, "1 of its nodes form a cycle"),
        (loop, "it has a Loop, which may run for ever"),
        (loop_in_a_branch, "it has a Loop, which may run for ever"),
        (declared, "its tensor huge would have 1,099,511,627,776 numbers"),
        (intermediate, r"makes a tensor \(unfolded\) of 1,099,511,627,776 numbers"),
        (repeated, r"makes a tensor \(tiled\) of [\d,]+ numbers"),
        (outside("../secret.bin"), r"keeps weights in '\.\./secret\.bin', which is not a file beside it"),
        (outside("/etc/passwd"), "which is not a file beside it"),
        (outside("link.bin"), "which is not a file beside it"),
        (outside("."), "which is not a file beside it"),
        (outside("short.bin", 8), "lies behind the end"),
        (outside("pipe.bin"), "which is not a file beside it"),
    ],
)
def test_a_graph_that_could_harm_is_refused(
    change: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(bytes(4))
    os.mkfifo(folder / "pipe.bin")
    model = graph()
    change(model)
    with pytest.raises(DiffcleanError, match=rf"t\.onnx .*{message}"):
        read(model, folder)


@pytest.mark.parametrize("shape", [("n", 3, 10**9, 10**9), ("n", 3, 2**40, 1), (10**9, 3, 16, 16), (1000, 3, 16, 16)])
def test_images_of_extreme_size_are_not_made_for_a_graph(shape: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(
        DiffcleanError, match=r"expected are at most (256 at once, of at most 2048 x 2048 px|268,435,456)"
    ):
        read(graph(shape), tmp_path)


def test_names_that_are_no_text_stay_out_of_standard_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime prints what it cannot decode, unless it is told not to."""
    data = graph().SerializeToString()
    at = data.rindex(b"\x01m")  # where the last node names its input
    (tmp_path / "t.onnx").write_bytes(data[:at] + b"\x01\xff" + data[at + 2 :])
    with pytest.raises(DiffcleanError):
        loading.load(ClassifierFile(tmp_path / "t.onnx"), DATA, CPU)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("how", ["Softmax, Mul", "Sigmoid"])
def test_probabilities_are_recognised_by_their_values(how: str, tmp_path: Path) -> None:
    """A softmax that is not the last node, or one that is spelled otherwise."""
    model = graph()
    model.graph.node[-1].output[0] = "logits"
    if how == "Sigmoid":
        nodes = [
            helper.make_node("Sigmoid", ["logits"], ["odds"]),
            helper.make_node("ReduceSum", ["odds", "axis"], ["whole"]),
            helper.make_node("Div", ["odds", "whole"], ["y"]),
        ]
    else:
        nodes = [helper.make_node("Softmax", ["logits"], ["p"]), helper.make_node("Mul", ["p", "one"], ["y"])]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    found = read(model, tmp_path)
    with pytest.raises(DiffcleanError, match=r"answers with probabilities \(they are not negative and sum to 1\)"):
        found.logits(IMAGES)


def test_a_good_graph_is_taken(tmp_path: Path) -> None:
    assert torch.allclose(read(graph(), tmp_path).logits(IMAGES), IMAGES.mean((2, 3)), atol=1e-5)
