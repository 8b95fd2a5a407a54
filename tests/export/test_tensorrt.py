"""Engines of TensorRT-RTX, compiled for real (it needs no GPU for that), and the keys that say what they are."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from diffclean.data.hashes import sha256_of
from diffclean.engine import tensorrt_library
from diffclean.engine.manifest import ComponentEntry, read_engine_manifest
from diffclean.engine.tensorrt_key import EngineKey, engine_file, key_path, load_key, onnx_digest, why_not
from diffclean.engine.tensorrt_library import FLAVOURS
from diffclean.engine.tensorrt_targets import Profile, closest_profile, parse_arch
from diffclean.environment import Gpu
from diffclean.errors import DiffcleanError, Interrupted, MissingExtraError, UsageError
from diffclean.export.onnx import onnx_from_component
from diffclean.export.tensorrt import build_engine, engine_key, ensure_engine
from diffclean.families.base import Component, Port

trt = pytest.importorskip("tensorrt_rtx")

FLOAT, BYTE = TensorProto.FLOAT, TensorProto.UINT8
X, Y = Port("x", "float32", (4,)), Port("y", "float32", (4,))
SIGNATURE = ComponentEntry((X,), (Y,))
BATCHES = Profile(1, 4, 8).both()


def graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    kinds: tuple[int, int] = (FLOAT, FLOAT),
    batch: str | int = "batch",
    weights: Sequence[onnx.TensorProto] = (),
) -> Path:
    """A graph from x to y, both (batch, 4)."""
    x, y = (helper.make_tensor_value_info(name, kind, (batch, 4)) for name, kind in zip("xy", kinds, strict=True))
    made = helper.make_graph(nodes, "test", [x], [y], list(weights))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def node(kind: str, source: str, target: str, name: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, [source], [target], name=name or kind.lower(), **attributes)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """A graph that compiles in no time."""
    return graph(tmp_path / "part/model.onnx", [node("Relu", "x", "y")])


def key_of(path: Path, **wishes: Any) -> EngineKey:
    return engine_key(path, **({"flavour": "tensorrt-rtx", "precision": "fp32", "profiles": BATCHES} | wishes))


def compiled(path: Path, signature: Any = SIGNATURE, **wishes: Any) -> Path:
    engine = engine_file(path.parent, "tensorrt-rtx")
    build_engine(path, engine, key_of(path, **wishes), signature)
    return engine


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("model.onnx"))


def test_a_graph_becomes_an_engine_with_its_key(relu: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = compiled(relu)
    key = load_key(engine)
    assert left_in(relu.parent) == ["model.tensorrt-rtx.engine", "model.tensorrt-rtx.json"]
    assert key == key_of(relu)
    assert key.onnx_sha256 == sha256_of(relu)
    assert (key.library_version, key.precision, key.arch) == (trt.__version__, "fp32", ())
    assert [str(profile) for profile in key.profiles] == ["4", "1:4:8"]
    assert json.loads(key_path(engine).read_text())["sha256"] == sha256_of(engine)
    assert why_not(engine, key) is None
    assert capfd.readouterr().out == ""


def test_the_same_graph_gives_the_same_bytes(relu: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.engine"
    build_engine(relu, again, key_of(relu), SIGNATURE)
    assert sha256_of(compiled(relu)) == sha256_of(again)


class Net(nn.Module):
    """What components are made of: a convolution, uint8 pixels at both ends, and the flag."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, pixels: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        image = pixels.float().permute(0, 3, 1, 2) / 127.5 - 1 + level[:, None, None, None]
        image = self.convolution(image.to(self.convolution.weight.dtype)).float()
        finite = torch.isfinite(image).flatten(1).all(dim=1)
        return (image.clamp(-1, 1) * 127.5 + 127.5).round().permute(0, 2, 3, 1).to(torch.uint8), finite


PIXELS = Port("pixels", "uint8", (8, 8, 3))
NET = ((PIXELS, Port("level", "float32", ())), (replace(PIXELS, name="out"), Port("finite", "bool", ())))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_what_torch_exports_compiles_in_every_precision(tmp_path: Path, precision: str) -> None:
    component = Component(Net().eval(), *NET)
    path = tmp_path / "part/model.onnx"
    onnx_from_component(component, path, precision)
    engine = compiled(path, component, precision=precision)
    assert engine.stat().st_size > 10_000
    assert load_key(engine).precision == precision


def test_every_component_of_micro_compiles(tiny_engine: Path, tmp_path: Path) -> None:
    """Guards the order of casts in a family: TensorRT takes uint8 only where it enters or leaves a graph."""
    for name, signature in read_engine_manifest(tiny_engine).components.items():
        path = tiny_engine / name / "model.onnx"
        build_engine(path, engine_file(tmp_path / name, "tensorrt-rtx"), key_of(path), signature)
        assert engine_file(tmp_path / name, "tensorrt-rtx").is_file()


@pytest.mark.parametrize(
    ("nodes", "kinds"),
    [
        ([node("Relu", "x", "z"), node("Cast", "z", "y", to=BYTE)], (FLOAT, BYTE)),
        ([node("Cast", "x", "z", to=FLOAT), node("Relu", "z", "y")], (BYTE, FLOAT)),
    ],
)
def test_bytes_are_cast_where_they_enter_and_leave(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], kinds: tuple[int, int]
) -> None:
    dtypes = ["uint8" if kind == BYTE else "float32" for kind in kinds]
    signature = ComponentEntry((replace(X, dtype=dtypes[0]),), (replace(Y, dtype=dtypes[1]),))
    assert compiled(graph(tmp_path / "part/model.onnx", nodes, kinds), signature).is_file()


@pytest.mark.parametrize(
    ("nodes", "kinds", "said"),
    [
        (
            [node("Transpose", "x", "z", perm=[0, 1]), node("Cast", "z", "y", to=FLOAT)],
            (BYTE, FLOAT),
            r"'transpose' \(Transpose\): (.|\n)*UInt8 but must have type",
        ),
        (
            [node("Cast", "x", "z", to=BYTE), node("Flatten", "z", "y")],
            (FLOAT, BYTE),
            r"'cast' \(Cast\): (.|\n)*does not support UINT8 types for intermediate tensors",
        ),
    ],
)
def test_bytes_elsewhere_are_refused_by_the_nodes_name(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto], kinds: tuple[int, int], said: str
) -> None:
    """And without a word of the missing driver: it is not what is wrong."""
    with pytest.raises(DiffcleanError, match=said) as error:
        compiled(graph(tmp_path / "part/model.onnx", nodes, kinds))
    assert "driver" not in str(error.value)


def test_operators_that_it_does_not_have_are_all_named(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", "a"),
        node("Bernoulli", "a", "b", name="dice"),
        node("Frobnicate", "b", "y", name="my_own"),
    ]
    with pytest.raises(DiffcleanError) as error:
        compiled(graph(tmp_path / "part/model.onnx", nodes))
    said = str(error.value)
    assert said.startswith(f"TensorRT-RTX {trt.__version__} cannot read {tmp_path}/part/model.onnx:\n")
    assert "  node 1 'dice' (Bernoulli): it has no such operator [UNSUPPORTED_NODE, " in said
    assert "  node 2 'my_own' (Frobnicate): " in said
    assert "Plugin not found" in said
    assert "`runtime` onnxruntime" in said
    assert left_in(tmp_path / "part") == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "model.onnx is damaged: "),
        (lambda path: path.write_text("hello world " * 9), "model.onnx is damaged: "),
        (lambda path: path.write_bytes(b""), r"not the graph that was declared:\n  its inputs are none; expected x\n"),
        (lambda path: path.unlink(), "There is no ONNX graph .*model.onnx"),
    ],
)
def test_a_damaged_graph(relu: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(relu)
    with pytest.raises(DiffcleanError, match=said):
        compiled(relu)


def test_a_graph_that_changes_after_its_key_was_made(relu: Path) -> None:
    key = key_of(relu)
    relu.write_bytes(relu.read_bytes()[:-20])
    with pytest.raises(DiffcleanError, match=r"cannot read (.|\n)*the file: (.|\n)*MODEL_DESERIALIZE_FAILED"):
        build_engine(relu, engine_file(relu.parent, "tensorrt-rtx"), key, SIGNATURE)


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        (ComponentEntry((X, Y), (Y,)), "its inputs are x; expected x, y"),
        (ComponentEntry((X,), (replace(Y, name="z"),)), "its outputs are y; expected z"),
        (
            ComponentEntry((replace(X, shape=(5,)),), (Y,)),
            r"its input x is FLOAT \[-1, 4\]; expected FLOAT \[batch, 5\]",
        ),
        (ComponentEntry((X,), (replace(Y, dtype="float16"),)), "its output y is FLOAT .*; expected HALF"),
        (ComponentEntry((X,), (replace(Y, shape=()),)), r"its output y is FLOAT .*; expected FLOAT \[batch\]"),
    ],
)
def test_a_graph_with_other_inputs_or_outputs(relu: Path, signature: ComponentEntry, said: str) -> None:
    """Tensors are bound by address: a wrong type would be written beyond its memory."""
    with pytest.raises(DiffcleanError, match=said):
        compiled(relu, signature)


def test_weights_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", FLOAT, (4, 4), torch.eye(4).numpy().tobytes(), raw=True)
    multiply = helper.make_node("MatMul", ["x", "w"], ["y"], name="multiply")
    path = graph(tmp_path / "part/model.onnx", [multiply], weights=[weights])
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, location="model.onnx.data")
    first = key_of(path)
    assert compiled(path).is_file()
    data = bytearray((tmp_path / "part/model.onnx.data").read_bytes())
    data[3] ^= 1
    (tmp_path / "part/model.onnx.data").write_bytes(data)
    assert "compiled from the graph" in " ".join(first.differences(key_of(path)))
    (tmp_path / "part/model.onnx.data").unlink()
    with pytest.raises(DiffcleanError, match=r"its weights model.onnx.data are missing"):
        onnx_digest(path)


@pytest.mark.parametrize("text", ["8:4:16", "0:1:2", "0", "4:8", "a", "", "1:2:3:4", "-1:4:8", "1:4:3"])
def test_profiles_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match=r"(.|\n)*minimum:optimum:maximum"):
        Profile.parse(text)


def test_profiles() -> None:
    assert Profile.parse("1:8:16") == Profile(1, 8, 16)
    assert Profile.parse("8") == Profile(8, 8, 8)
    assert [str(each) for each in Profile(1, 8, 16).both()] == ["8", "1:8:16"]
    assert Profile(8, 8, 8).both() == (Profile(8, 8, 8),)
    both = Profile(1, 8, 16).both()
    assert [closest_profile(both, batch) for batch in (8, 1, 16, 17)] == [0, 1, 1, None]


def test_a_graph_of_fixed_batch_takes_no_other(tmp_path: Path) -> None:
    path = graph(tmp_path / "part/model.onnx", [node("Relu", "x", "y")], batch=2)
    with pytest.raises(DiffcleanError, match=r"its input x takes batches of 2 only; asked for: 1:4:8, 4"):
        compiled(path)
    assert compiled(path, profiles=[Profile(2, 2, 2)]).is_file()


def test_targets_are_compiled_for_and_recorded(relu: Path) -> None:
    engine = compiled(relu, arch=((8, 9), (8, 6), (12, 0)))
    key = load_key(engine)
    assert key.arch == ((8, 6), (8, 9), (12, 0))
    assert json.loads(key_path(engine).read_text())["key"]["arch"] == ["8.6", "8.9", "12.0"]
    portable = sha256_of(engine)
    assert sha256_of(compiled(relu)) != portable
    assert [key.runs_on(capability) for capability in ((8, 9), (8, 0), (7, 5))] == [True, False, False]
    assert [key_of(relu).runs_on(capability) for capability in ((8, 9), (8, 0), (7, 5))] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "arch"),
    [("8.9", ((8, 9),)), ("12.0, 8.6,8.6", ((8, 6), (12, 0))), ("", None), ("89", None), ("a.b", None)],
)
def test_architectures_as_typed(text: str, arch: object) -> None:
    if arch is None:
        with pytest.raises(UsageError, match="is not a list of GPU architectures"):
            parse_arch(text)
    else:
        assert parse_arch(text) == arch


def test_a_target_that_it_does_not_have(relu: Path) -> None:
    with pytest.raises(UsageError, match=r"no target 9.0; it has 7.5, 8.0, 8.6.*\n.*Hopper \(9.0\).*tensorrt"):
        key_of(relu, arch=((8, 6), (9, 0)))


CARD = Gpu("NVIDIA L4", (8, 9), 24 * 2**30, "13.0")


def test_tensorrt_compiles_on_the_gpu_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FLAVOURS["tensorrt"]
    monkeypatch.setattr(tensorrt_library, "gpus", list)
    monkeypatch.setattr(tensorrt_library, "why_no_gpu", lambda: "there is no NVIDIA driver")
    with pytest.raises(DiffcleanError, match=r"here there is no NVIDIA driver(.|\n)*tensorrt-rtx"):
        library.targets(None, None)
    monkeypatch.setattr(tensorrt_library, "gpus", lambda: [CARD])
    assert library.targets(None, None) == library.targets(None, ((8, 9),)) == (((8, 9),), "NVIDIA L4")
    with pytest.raises(UsageError, match=r"NVIDIA L4 \(8.9\) only, not for 8.6"):
        library.targets(None, ((8, 6),))


def test_turing_is_compiled_for_where_it_is(relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The portable engine leaves it out."""
    monkeypatch.setattr(tensorrt_library, "gpus", lambda: [replace(CARD, capability=(7, 5))])
    assert key_of(relu).arch == ((7, 5),)
    monkeypatch.setattr(tensorrt_library, "gpus", lambda: [CARD])
    assert key_of(relu).arch == ()


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("tensorrt", {(7, 0): False, (7, 5): True, (9, 0): True, (10, 0): True}),
        ("tensorrt-rtx", {(7, 5): True, (8, 6): True, (9, 0): False, (10, 0): False, (12, 0): True, (12, 1): True}),
    ],
)
def test_which_gpus_are_supported(name: str, capabilities: dict[tuple[int, int], bool]) -> None:
    assert {each: FLAVOURS[name].supported(each) for each in capabilities} == capabilities


KEY = EngineKey("tensorrt-rtx", "1.7", "a" * 64, "fp32", ((8, 6),), "", BATCHES, ("STRICT_NANS",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flavour": "tensorrt"}, "it was compiled by tensorrt-rtx, wanted is tensorrt"),
        ({"library_version": "1.8"}, "it was compiled by version 1.7, wanted is 1.8"),
        ({"onnx_sha256": "b" * 64}, "it was compiled from the graph aaaaaaaaaaaa…, wanted is bbbbbbbbbbbb"),
        ({"precision": "fp16"}, "it was computing in fp32, wanted is fp16"),
        ({"arch": ((8, 9), (12, 0))}, "it was compiled for GPUs of compute capability 8.6, wanted is 8.9, 12.0"),
        ({"arch": ()}, "it was compiled for GPUs of compute capability 8.6, wanted is 8.0 and newer"),
        ({"gpu": "NVIDIA L4"}, "it was tuned on no GPU, wanted is NVIDIA L4"),
        ({"profiles": (Profile(2, 2, 2),)}, "it was made for batches of 4, 1:4:8, wanted is 2"),
        ({"flags": ()}, "it was compiled with STRICT_NANS, wanted is no flags"),
        ({"memory_limit_bytes": 1024}, "it was limited to all bytes of scratch memory, wanted is 1024"),
    ],
)
def test_what_differs_is_said_in_words(change: dict[str, Any], said: str) -> None:
    other = replace(KEY, **change)
    assert KEY.differences(other) == [said]
    assert KEY.differences(KEY) == []
    assert EngineKey.from_json(json.loads(json.dumps(other.to_json()))) == other


def test_several_differences_are_all_said() -> None:
    assert len(KEY.differences(replace(KEY, precision="fp16", library_version="2", arch=()))) == 3


def flip(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


def rewrite(before: str, after: str) -> Callable[[Path], object]:
    return lambda engine: key_path(engine).write_text(key_path(engine).read_text().replace(before, after))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "its bytes were changed: sha256 "),
        (lambda engine: engine.unlink(), "it is missing"),
        (lambda engine: key_path(engine).unlink(), "has no key beside it"),
        (rewrite("{", "["), "model.tensorrt-rtx.json is damaged"),
        (rewrite('"format": 1', '"format": 2'), "format 2, expected 1"),
        (rewrite('"precision"', '"prediction"'), "model.tensorrt-rtx.json is damaged"),
        (rewrite('"1:4:8"', '"4:1:8"'), "model.tensorrt-rtx.json is damaged"),
        (rewrite('"fp32"', '"fp16"'), "it was computing in fp16, wanted is fp32"),
    ],
)
def test_an_engine_that_is_not_the_wanted_one_is_compiled_again_and_said_why(
    relu: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], object], said: str
) -> None:
    engine, key = compiled(relu), key_of(relu)
    before = sha256_of(engine)
    assert not ensure_engine(relu, engine, key, SIGNATURE)
    harm(engine)
    assert said in (why_not(engine, key) or "")
    there = engine.exists()
    assert ensure_engine(relu, engine, key, SIGNATURE)
    assert why_not(engine, key) is None
    assert sha256_of(engine) == before
    assert (f"Compiling {engine} again: " in caplog.text) == there
    assert not there or said in caplog.text


class Counter:
    """Hears everything; does as told at the first per cent."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.said: list[object] = []
        self.percent = 0
        self.then = then

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        self.said.append((what, total, unit))

    def advance(self, count: int = 1, **figures: float) -> None:
        self.percent += count
        self.then()

    def end(self) -> None:
        self.said.append("end")


def test_the_build_tells_how_far_it_is(relu: Path) -> None:
    counter = Counter()
    steps: list[int] = []
    counter.then = lambda: steps.append(counter.percent)
    build_engine(relu, engine_file(relu.parent, "tensorrt-rtx"), key_of(relu), SIGNATURE, progress=counter)
    assert counter.said == [("compile part", 100, "%"), "end"]
    assert counter.percent == 100
    assert len(steps) > 5
    assert steps == sorted(steps)


def test_a_build_can_be_stopped(relu: Path) -> None:
    stop = threading.Event()
    counter = Counter(then=stop.set)
    with pytest.raises(Interrupted, match=r"Stopped: compile part\. Nothing was written"):
        build_engine(relu, engine_file(relu.parent, "tensorrt-rtx"), key_of(relu), SIGNATURE, None, counter, stop)
    assert counter.said[-1] == "end"
    assert counter.percent < 100
    assert left_in(relu.parent) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_what_a_listener_raises_ends_the_build_and_comes_out(relu: Path, kind: type[BaseException]) -> None:
    """Ctrl-C arrives in whichever Python code runs, and during a build that is the listener's."""

    def fail() -> None:
        raise kind("as asked")

    with pytest.raises(kind, match="as asked"):
        build_engine(relu, engine_file(relu.parent, "tensorrt-rtx"), key_of(relu), SIGNATURE, None, Counter(then=fail))
    assert left_in(relu.parent) == []


def test_a_full_disk_leaves_nothing(relu: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]) -> None:
    key = key_of(relu)
    with file_size_limit(1000), pytest.raises(DiffcleanError, match="larger than is allowed here"):
        build_engine(relu, engine_file(relu.parent, "tensorrt-rtx"), key, SIGNATURE)
    assert left_in(relu.parent) == []


def test_an_engine_is_not_left_without_its_key(relu: Path) -> None:
    engine = engine_file(relu.parent, "tensorrt-rtx")
    key_path(engine).mkdir()  # whoever wants to write it fails, root too
    with pytest.raises(DiffcleanError, match="Cannot write"):
        build_engine(relu, engine, key_of(relu), SIGNATURE)
    assert left_in(relu.parent) == [key_path(engine).name]


def test_a_library_that_is_missing(relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match=r"TensorRT-RTX is not installed(.|\n)*'diffclean\[rtx\]'"):
        key_of(relu)
    for stub in (None, SimpleNamespace(__version__="10.0")):  # the registry's packages may be empty
        monkeypatch.setitem(sys.modules, "tensorrt", stub)
        with pytest.raises(MissingExtraError, match=r"TensorRT is not installed(.|\n)*'diffclean\[gpu\]'"):
            key_of(relu, flavour="tensorrt")
    with pytest.raises(UsageError, match="Known: tensorrt, tensorrt-rtx"):
        key_of(relu, flavour="tensorflow")


def test_wishes_that_the_library_cannot_meet(relu: Path, tmp_path: Path) -> None:
    for flag in ("VERSION_COMPATIBLE", "REFIT"):
        with pytest.raises(UsageError, match=f"TensorRT-RTX cannot compile with {flag}"):
            key_of(relu, flags=[flag])
        assert flag in FLAVOURS["tensorrt"].flag_names([flag])
    with pytest.raises(UsageError, match="has no builder flag WARP_SPEED"):
        key_of(relu, flags=["WARP_SPEED"])
    with pytest.raises(UsageError, match="TensorRT-RTX has no timing cache"):
        build_engine(relu, tmp_path / "x.engine", key_of(relu), SIGNATURE, timing_cache=tmp_path / "timing")


def test_flags_and_limits_reach_the_builder(relu: Path) -> None:
    key = key_of(relu, flags=["DISABLE_COMPILATION_CACHE"], memory_limit_bytes=2**20)
    assert key.flags == ("STRICT_NANS", "-TF32", "REQUIRE_USER_ALLOCATION", "DISABLE_COMPILATION_CACHE")
    engine = engine_file(relu.parent, "tensorrt-rtx")
    build_engine(relu, engine, key, SIGNATURE)
    assert load_key(engine).memory_limit_bytes == 2**20


def test_the_library_speaks_to_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = graph(tmp_path / "part/model.onnx", [node("Frobnicate", "x", "y")])
    with caplog.at_level(logging.DEBUG), pytest.raises(DiffcleanError):
        compiled(path)
    heard = [record for record in caplog.records if record.name == tensorrt_library.__name__]
    assert heard
    assert {record.levelno for record in heard} == {logging.DEBUG}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_timing_cache_is_kept_where_there_is_one(relu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX has its functions and does nothing in them: enough to see that they are called as they ask."""
    monkeypatch.setitem(FLAVOURS, "tensorrt-rtx", replace(FLAVOURS["tensorrt-rtx"], timing_cache=True))
    cache = tmp_path / "deep/timing.cache"
    for _ in range(2):
        build_engine(relu, tmp_path / "x.engine", key_of(relu), SIGNATURE, timing_cache=cache)
        assert cache.is_file()
