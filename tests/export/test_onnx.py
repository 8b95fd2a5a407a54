"""torch -> ONNX, and the check of one against the other."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import diffclean
from diffclean.data.hashes import hashes_below
from diffclean.engine.manifest import EngineManifest
from diffclean.engine.tensorrt_key import onnx_digest
from diffclean.errors import DiffcleanError
from diffclean.export import onnx as exporting
from diffclean.export.onnx import example_inputs, onnx_from_component, parity_batch, parity_of_onnx
from diffclean.families.base import Component, Port

X, Y = Port("x", "float32", (4,)), Port("y", "float32", (4,))


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


def graph(path: Path, node: str, kind: int = TensorProto.FLOAT, shape: tuple[object, ...] = ("batch", 4)) -> Path:
    """A graph of one node."""
    ends = [helper.make_tensor_value_info("x", kind, shape), helper.make_tensor_value_info("y", kind, shape)]
    made = helper.make_graph([helper.make_node(node, ["x"], ["y"])], "test", ends[:1], ends[1:])
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def parity(tmp_path: Path, node: str, function: object) -> dict[str, float]:
    return parity_of_onnx(Component(Function(function), (X,), (Y,)), graph(tmp_path / "part/model.onnx", node))


def test_equal(tmp_path: Path) -> None:
    assert parity(tmp_path, "Identity", lambda x: x.clone()) == {"max_absolute": 0.0, "max_relative": 0.0}


def test_a_small_difference_is_measured(tmp_path: Path) -> None:
    found = parity(tmp_path, "Identity", lambda x: x * (1 + 5e-5))
    assert 4e-5 < found["max_relative"] < 6e-5
    assert found["max_absolute"] > 0


@pytest.mark.parametrize(
    ("node", "function"),
    [
        ("Identity", lambda x: x * 1.001),
        ("Neg", lambda x: x),
        ("Sqrt", lambda x: x.clamp_min(0).sqrt()),  # NaN in the graph only: no comparison with NaN is ever true
        ("Identity", lambda x: torch.where(x > 0, x, torch.nan)),  # in torch only
        ("Identity", lambda x: torch.where(x > 0, x, torch.inf)),
        ("Identity", lambda x: x[:, :1]),  # would be broadcast
        ("Identity", lambda x: x.double()),
    ],
)
def test_a_graph_that_differs_is_refused(tmp_path: Path, node: str, function: object) -> None:
    with pytest.raises(DiffcleanError, match="part: ONNX differs from torch by"):
        parity(tmp_path, node, function)


def test_nan_on_both_sides_is_no_difference(tmp_path: Path) -> None:
    """A model may be broken: that shows when it runs, image by image."""
    assert parity(tmp_path, "Sqrt", torch.sqrt)["max_relative"] < 1e-6
    assert parity(tmp_path, "Identity", lambda x: x.clone())["max_relative"] == 0


@pytest.mark.parametrize(("off", "refused"), [(1, False), (2, True)])
def test_one_grey_level_is_rounding(tmp_path: Path, off: int, refused: bool) -> None:
    ports = (Port("x", "uint8", (4,)),), (Port("y", "uint8", (4,)),)
    component = Component(Function(lambda x: torch.where(x < 128, x + off, x)), *ports)
    path = graph(tmp_path / "part/model.onnx", "Identity", TensorProto.UINT8)
    if refused:
        with pytest.raises(DiffcleanError):
            parity_of_onnx(component, path)
    else:
        assert parity_of_onnx(component, path)["max_relative"] == 0


def test_example_inputs_have_the_declared_form() -> None:
    ports = (Port("pixels", "uint8", (5, 5, 3)), Port("x", "float32", (2,)), Port("level", "float32", ()))
    inputs = example_inputs(ports, batch=3)
    assert [(tuple(t.shape), t.dtype) for t in inputs.values()] == [
        ((3, 5, 5, 3), torch.uint8),
        ((3, 2), torch.float32),
        ((3,), torch.float32),
    ]
    assert int(inputs["pixels"].max()) > 200
    assert all(torch.equal(inputs[name], again) for name, again in example_inputs(ports, batch=3).items())


def test_what_torch_cannot_export(tmp_path: Path) -> None:
    component = Component(Function(lambda x: x if float(x.sum()) > 0 else -x), (X,), (Y,))
    with pytest.raises(DiffcleanError, match="could not export Function to ONNX"):
        onnx_from_component(component, tmp_path / "part/model.onnx")
    assert not list(tmp_path.rglob("*.onnx"))


class Large(nn.Module):
    """Asks of its batch what diffusers' Upsample2D asks: a VAE at 768 px could not be traced for every batch."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] >= 64 or x.numel() * 2.0 > 2**31:
            x = x.contiguous()
        return x * 2


def test_tensors_that_may_exceed_two_to_the_31(tmp_path: Path) -> None:
    shape = (3, 3, 10_000)
    component = Component(Large(), (Port("x", "float32", shape),), (Port("y", "float32", shape),))
    path = tmp_path / "part/model.onnx"
    onnx_from_component(component, path)
    for batch in (1, 70):
        assert parity_of_onnx(component, path, batch=batch)["max_relative"] == 0


def test_how_many_images_a_component_is_checked_with() -> None:
    """Never as many as it was traced with, and one where it is large."""
    small = Port("x", "float32", (3, 64, 64))
    assert parity_batch(Component(nn.Identity(), (small,), (small,))) == 3
    assert parity_batch(Component(nn.Identity(), (small,), (Port("y", "uint8", (768, 768, 3)),))) == 1
    with torch.device("meta"):
        heavy = nn.Linear(30_000, 20_000)
    assert parity_batch(Component(heavy, (small,), (small,))) == 1


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_EXTERNAL_FROM_BYTES", 1000)
    layer = nn.Linear(64, 64)
    component = Component(layer, (Port("x", "float32", (64,)),), (Port("y", "float32", (64,)),))
    path = tmp_path / "part/model.onnx"
    onnx_from_component(component, path)
    assert (path.parent / "model.onnx.data").stat().st_size >= 4 * 64 * 64
    assert parity_of_onnx(component, path)["max_relative"] <= 1e-5
    manifest = EngineManifest("micro", {}, 64, {}, {}, hashes_below(tmp_path), {})
    assert manifest.graph_sha256("part") == onnx_digest(path)


def test_an_exported_graph(tiny_engine: Path) -> None:
    """The batch axis is dynamic, all others are not, and nothing tells where it was made."""
    for path in sorted(tiny_engine.rglob("*.onnx")):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        for value in [*model.graph.input, *model.graph.output]:
            first, *rest = value.type.tensor_type.shape.dim
            assert first.dim_param, (path, value.name)
            assert all(each.dim_value for each in rest), (path, value.name)
        data = path.read_bytes()
        for folder in (Path(diffclean.__file__).parents[1], Path(torch.__file__).parents[1]):
            assert str(folder).encode() not in data
