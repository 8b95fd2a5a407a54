"""Graphs of an engine that an attacker wrote, with hashes that fit: a message before any runtime opens them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from diffclean.cli.main import main
from diffclean.data.hashes import sha256_of
from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.runtime.choose import open_engine

GRAPH = "vae_decoder/model.onnx"


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_engine, tmp_path / "engine"))


def recorded(engine: Path, *names: str) -> None:
    """The files are on record as they are."""
    manifest = read_engine_manifest(engine)
    files = {**manifest.files, **{name: sha256_of(engine / name) for name in (GRAPH, *names)}}
    replace(manifest, files=files).write(engine)


def changed(engine: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(engine / GRAPH)
    change(model)
    (engine / GRAPH).write_bytes(model.SerializeToString())
    recorded(engine)


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node.extend(
        [helper.make_node("Identity", ["one"], ["two"]), helper.make_node("Identity", ["two"], ["one"])]
    )


def body() -> onnx.GraphProto:
    value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Identity", ["sample"], ["inside"])], "body", [], [value])


def loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body()))


def branch(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("If", ["sample"], ["either"], then_branch=body(), else_branch=body()))


def declared_constant(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(TensorProto(name="huge", data_type=TensorProto.FLOAT, dims=[2**20, 2**20]))


def many_constants(model: onnx.ModelProto) -> None:
    for number in range(3000):
        tensor = TensorProto(name=f"part{number}", data_type=TensorProto.DOUBLE, dims=[100_000])
        model.graph.initializer.append(tensor)


def intermediate(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.np.array([2**20, 2**20]), "sides"))
    model.graph.node.append(helper.make_node("ConstantOfShape", ["sides"], ["unfolded"]))


def own_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def own_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Run", ["sample"], ["ran"], domain="com.example"))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("F", ["a"], ["b"], domain="loc")
    model.functions.append(helper.make_function("loc", "F", ["a"], ["b"], [node], [helper.make_opsetid("loc", 1)]))


def later_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10**9


def many_nodes(model: onnx.ModelProto) -> None:
    model.MergeFromString(b"\x3a\x80\x89\x7a" + b"\x0a\x00" * 1_000_000)  # a graph of a million nodes of two bytes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cycle, r"2 of its nodes form a cycle"),
        (loop, r"it has a Loop, which may run for ever"),
        (branch, r"its If has a graph inside; expected are only nodes without one"),
        (declared_constant, r"its tensor huge would have 1,099,511,627,776 numbers, but the file has only"),
        (many_constants, r"together its constants would have 2,400,0\d\d,\d+ bytes; expected .* at most"),
        (intermediate, r"makes a tensor \(unfolded\) of 1,099,511,627,776 numbers for each image; expected"),
        (own_domain, r"operators of the domain 'com\.example'; expected are ONNX's own"),
        (own_operator, r"has a Run of the domain 'com\.example'; expected are ONNX's own"),
        (function, r"defines functions \(F\); expected are none"),
        (later_opset, r"has the ONNX opset 1000000000; expected is at most"),
        (many_nodes, r"has more than 1,000,000 nodes and other fields"),
    ],
)
def test_a_graph_that_no_export_writes_is_refused(
    change: Callable[[onnx.ModelProto], object], message: str, engine: Path
) -> None:
    changed(engine, change)
    with pytest.raises(DiffcleanError, match=rf"(?s)vae_decoder/model\.onnx is.*{message}.*diffclean export MODEL"):
        open_engine(engine, "onnxruntime")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b" * 100])
def test_what_is_no_graph_is_refused(content: bytes, engine: Path) -> None:
    (engine / GRAPH).write_bytes(content)
    recorded(engine)
    with pytest.raises(DiffcleanError, match=r"model\.onnx is damaged or is not an ONNX file"):
        open_engine(engine, "onnxruntime")


def with_external(engine: Path, offset: int, length: int) -> Path:
    """The last constant of the graph lies in `weights.bin` of 64 bytes beside it."""
    place = engine / "vae_decoder" / "weights.bin"
    place.write_bytes(bytes(64))
    model = onnx.load(engine / GRAPH)
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[length // 4], raw_data=bytes(length))
    set_external_data(tensor, "weights.bin", offset, length)
    tensor.ClearField("raw_data")
    model.graph.initializer.append(tensor)
    (engine / GRAPH).write_bytes(model.SerializeToString())
    return place


def test_external_weights_must_lie_within_their_file(engine: Path) -> None:
    with_external(engine, 32, 64)
    recorded(engine, "vae_decoder/weights.bin")
    with pytest.raises(DiffcleanError, match=r"its tensor outside lies behind the end of weights\.bin"):
        open_engine(engine, "onnxruntime")


def test_external_weights_may_not_be_a_link_out_of_the_folder(engine: Path, tmp_path: Path) -> None:
    place = with_external(engine, 0, 64)
    place.rename(tmp_path / "elsewhere.bin")
    place.symlink_to(tmp_path / "elsewhere.bin")
    recorded(engine, "vae_decoder/weights.bin")
    with pytest.raises(DiffcleanError, match=r"keeps weights in 'weights\.bin', which is not a file beside it"):
        open_engine(engine, "onnxruntime")


def test_external_weights_that_are_sound_are_taken(engine: Path) -> None:
    with_external(engine, 0, 64)
    recorded(engine, "vae_decoder/weights.bin")
    assert open_engine(engine, "onnxruntime").runtime.name == "onnxruntime"


def test_names_that_are_no_text_stay_out_of_standard_output(engine: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime prints what it cannot decode, unless it is told not to."""
    data = (engine / GRAPH).read_bytes()
    name = onnx.load(engine / GRAPH).graph.initializer[0].name.encode()
    (engine / GRAPH).write_bytes(data.replace(name, b"\xff" * len(name), 1))  # where a node names it
    recorded(engine)
    with pytest.raises(DiffcleanError, match=r"vae_decoder/model\.onnx (cannot be run|is damaged)"):
        open_engine(engine, "onnxruntime")
    assert capfd.readouterr().out == ""


def test_the_command_ends_with_a_message(engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    changed(engine, cycle)
    (tmp_path / "in").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "in" / "a.png")
    assert main(["variate", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--engine", str(engine)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "form a cycle" in said
    assert "diffclean export" in said
