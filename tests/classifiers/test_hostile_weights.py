"""Weight files that an attacker, a crash or another program wrote: a message, never a figure, a hang or gigabytes."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffclean.classifiers import checkpoints, loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import ARCHITECTURES, build
from diffclean.cli.main import main
from diffclean.errors import DiffcleanError

CPU = torch.device("cpu")
DATA = {"ant": 0, "cat": 1, "zebra": 2}
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(arch: str = "tiny") -> nn.Module:
    torch.manual_seed(0)
    return build(arch, 3).eval().net


def read(path: Path, arch: str | None = "tiny") -> loading.LoadedClassifier:
    return loading.load(ClassifierFile(path, arch=arch), DATA, CPU)


def whole(path: Path, **changes: Any) -> Path:
    """A classifier of ours whose content is changed."""
    checkpoints.save(path, build("tiny", 3), "tiny", DATA, (16, 16), {})
    content = torch.load(path, weights_only=True)
    torch.save({**content, **changes}, path)
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(value: float, tmp_path: Path) -> None:
    state = network().state_dict()
    state["0.weight"][1, 2, 0, 0] = value
    torch.save(state, tmp_path / "bare.pt")
    with pytest.raises(DiffcleanError, match=r"bare\.pt is refused: 1 of the 432 numbers of its tensor net\.0\.weight"):
        read(tmp_path / "bare.pt")
    model = build("tiny", 3)
    model.net.load_state_dict(state)
    for name in ("ours.pt", "ours.safetensors"):
        checkpoints.save(tmp_path / name, model, "tiny", DATA, (16, 16), {})
        with pytest.raises(DiffcleanError, match=rf"{name} is refused: .*tensor net\.0\.weight are not finite"):
            checkpoints.load(tmp_path / name)


class Always(nn.Module):
    """Finite weights, and the same answer to everything."""

    def __init__(self, answer: list[float]) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (3e38 * self.answer * 3e38 if self.answer[0] == 2 else self.answer).expand(len(images), -1)


@pytest.mark.parametrize(
    ("answer", "message"), [([2.0, 1, 1], "not finite"), ([0.25, 0.25, 0.5], "probabilities"), ([0.0, 1, 0], "probab")]
)
def test_answers_that_are_no_logits_end_evaluation_and_distillation(
    answer: list[float],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shapes: tuple[Path, Path],
    make_variations: Any,
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "always", lambda classes: Always(answer))
    classes = {name: index for index, name in enumerate(sorted(p.name for p in shapes[1].iterdir()))}
    assert len(classes) == 3
    path = tmp_path / "odd.pt"
    checkpoints.save(path, build("always", 3, (0, 0, 0), (1, 1, 1)), "always", classes, (16, 16), {})
    assert main(["evaluate", str(path), str(shapes[1])]) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert "%" not in said.out
    varied = make_variations(shapes[1], tmp_path / "varied")
    student = tmp_path / "student.pt"
    assert (
        main(["distill", "--data", str(varied), "--teacher", str(path), "--student", "tiny", "-o", str(student)]) == 1
    )
    assert message in capsys.readouterr().err
    assert not student.exists()


def test_an_onnx_classifier_with_nan_is_refused_by_the_name_of_its_tensor(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    ports = [helper.make_tensor_value_info(*p) for p in (("x", 1, ["n", 3, 16, 16]), ("y", 1, ["n", 3]))]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Add", ["f", "bias"], ["y"]),
    ]
    bias = numpy_helper.from_array(np.array([0, np.nan, 0], np.float32), "bias")
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [bias])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "t.onnx")
    with pytest.raises(DiffcleanError, match=r"t\.onnx is refused: its tensor bias holds NaN"):
        read(tmp_path / "t.onnx", None)


FORMS = (
    *("averaged", "profiled", "old", "lightning", "compiled, parallel", "backbone", "any name", "beside numbers"),
    *("two levels", "state_dict_ema", "model_ema", "ema", "swa_state_dict", "netC"),
)


def forms() -> dict[str, Mapping[str, Any]]:
    """How training programs save the same weights."""
    state = network().state_dict()
    bare = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}

    def under(*prefixes: str) -> dict[str, Any]:
        return {f"{''.join(prefixes)}{name}": tensor for name, tensor in state.items()}

    return {
        "averaged": {**under("module."), "n_averaged": torch.tensor(7)},
        "profiled": {**state, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
        "old": bare,
        "lightning": {"state_dict": {**under("model."), "criterion.weight": torch.ones(3)}, "epoch": 3},
        "compiled, parallel": under("module.", "_orig_mod."),
        "backbone": {**under("backbone."), "queue": torch.ones(2, 2)},
        "any name": {**under("student.encoder."), "teacher.w": torch.ones(2)},
        "beside numbers": {**state, "epoch": 3, "best": 0.9},
        "two levels": {"model": {"state_dict": state, "arch": "x"}},
        **{
            name: {name: state, "epoch": 3} for name in ("state_dict_ema", "model_ema", "ema", "swa_state_dict", "netC")
        },
    }


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_in_any_form(form: str, tmp_path: Path) -> None:
    torch.save(forms()[form], tmp_path / "w.pt")
    model = build("tiny", 3).eval()
    model.net.load_state_dict(network().state_dict())
    assert torch.allclose(read(tmp_path / "w.pt").logits(IMAGES), model(IMAGES), atol=1e-5)


def test_of_two_tables_it_is_said_which_was_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = network().state_dict()
    torch.save({"model": state, "model_ema": {n: t + 1 for n, t in state.items()}}, tmp_path / "w.pt")
    found = read(tmp_path / "w.pt").network
    assert torch.equal(found.net[0].weight, state["0.weight"])  # type: ignore[attr-defined]
    assert "model is used, not model_ema" in caplog.text
    both = {f"{who}.{name}": tensor for who in ("student", "teacher") for name, tensor in state.items()}
    torch.save(both, tmp_path / "w.pt")
    read(tmp_path / "w.pt")
    assert "the weights under 'student.' are used, not 'teacher.'" in caplog.text


@pytest.mark.parametrize("extra", [np.float64(0.5), np.ones(3)])
def test_numpy_numbers_beside_weights_are_called_that(extra: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": network().state_dict(), "best": extra}, tmp_path / "w.pt")
    with pytest.raises(DiffcleanError, match=r"(?s)NumPy numbers or arrays beside its weights.*torch\.save"):
        read(tmp_path / "w.pt")


def deflated(path: Path, size_bytes: int) -> None:
    """A small archive whose one storage unfolds to many zeros."""
    torch.save({"w": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, bytes(size_bytes) if name.endswith("data/0") else data)


def test_a_small_file_that_unfolds_to_a_large_one_is_refused_unread(tmp_path: Path) -> None:
    deflated(tmp_path / "bomb.pt", 100 * 2**20)
    assert (tmp_path / "bomb.pt").stat().st_size < 2**20
    with pytest.raises(DiffcleanError, match=r"bomb\.pt is refused: it has [\d,]+ bytes and unfolds to 104,857,\d+"):
        read(tmp_path / "bomb.pt")


class Bytes:
    def __reduce__(self) -> Any:
        return bytearray, (10**12,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_a_terabyte_of_zeros_is_refused(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    path.write_bytes(pickle.dumps({"w": Bytes()}, protocol=2))
    if zipped:
        data = path.read_bytes()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("bomb/data.pkl", data)
            archive.writestr("bomb/version", "3\n")
            archive.writestr("bomb/byteorder", "little")
    with pytest.raises(DiffcleanError, match=r"bomb\.pt is refused: it holds a bytearray"):
        read(path)


def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"0.weight": torch.ones(1).expand(10**12)}, tmp_path / "w.pt")
    with pytest.raises(DiffcleanError, match="its tensors would take 4,000,000,000,000"):
        read(tmp_path / "w.pt")


def test_a_table_that_holds_itself_many_times_is_not_walked_for_ever(tmp_path: Path) -> None:
    table: Any = {"w": torch.ones(1)}
    for _ in range(40):
        table = {"a": table, "b": table, "model": table}
    torch.save(table, tmp_path / "w.pt")
    with pytest.raises(DiffcleanError):
        read(tmp_path / "w.pt")
    laugh: Any = ["ha"]
    for _ in range(40):
        laugh = [laugh, laugh]
    with pytest.raises(DiffcleanError, match="class_to_idx"):
        checkpoints.load(whole(tmp_path / "ours.pt", class_to_idx=laugh))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(16, 3, 3, 3).to_sparse(), "sparse"),
        (torch.quantize_per_tensor(torch.ones(16, 3, 3, 3), 1.0, 0, torch.qint8), "quantised"),
        (torch.ones(16, 3, 3, 3, dtype=torch.complex64), "complex"),
        (torch.ones(16, 3, 3, 3, device="meta"), "on the device meta"),
    ],
)
def test_tensors_of_other_kinds_are_named(tensor: torch.Tensor, kind: str, tmp_path: Path) -> None:
    torch.save({**network().state_dict(), "0.weight": tensor}, tmp_path / "w.pt")
    with pytest.raises(DiffcleanError, match=rf"its tensor 0\.weight is {kind}"):
        read(tmp_path / "w.pt")


def test_a_giant_network_is_not_built_for_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose weights would take a terabyte: to build it would end the test."""
    monkeypatch.setitem(ARCHITECTURES, "giant", lambda classes: nn.Linear(500_000, 500_000))
    with pytest.raises(DiffcleanError, match="damaged: its parts do not fit together"):
        checkpoints.load(whole(tmp_path / "ours.pt", arch="giant"))
    torch.save(network().state_dict(), tmp_path / "w.pt")
    with pytest.raises(DiffcleanError, match="does not fit giant with 3 classes"):
        read(tmp_path / "w.pt", "giant")
    with pytest.raises(DiffcleanError, match="does not fit vit_gigantic_patch14_224"):
        read(tmp_path / "w.pt", "vit_gigantic_patch14_224")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": [10**30, 16]},
        {"size": [float("inf"), 16]},
        {"size": [-1, 0]},
        {"mean": [0.0] * 1000},
        {"std": [10**30, "a", None]},
        {"arch": ["tiny"]},
        {"arch": "*a" * 1000},
        {"arch": "\x1b[31m"},
        {"class_to_idx": {"a": 10**30}},
        {"class_to_idx": {1: 0}},
        {"metrics": 5},
        {"versions": None},
        {"training": [1]},
        {"format_version": [1]},
        {"state_dict": [1]},
        {"state_dict": {"net.0.weight": "x"}},
        {"state_dict": {5: torch.ones(1)}},
    ],
)
def test_wrong_values_in_a_classifier_of_ours_are_messages(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError):
        checkpoints.load(whole(tmp_path / "ours.pt", **changes))
    with pytest.raises(DiffcleanError):
        read(tmp_path / "ours.pt", None)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{" * 5000,
        b"[" * 100_000,
        json.dumps({"w": {"dtype": "F32", "shape": [10**18], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"w": {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(),
        json.dumps({"w": 5}).encode(),
        b'{"w": NaN}',
        b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
    ],
)
def test_headers_of_safetensors_are_messages(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(DiffcleanError, match=r"w\.safetensors"):
        read(path)
    path.write_bytes(struct.pack("<Q", 2**60) + header)
    with pytest.raises(DiffcleanError, match=r"its header would have|damaged"):
        read(path)


def test_half_of_a_character_in_the_metadata_is_a_message(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "w.safetensors", {"diffclean": '{"arch": "\\ud800"}'})
    with pytest.raises(DiffcleanError, match="surrogate"):
        read(tmp_path / "w.safetensors")


def test_an_ordered_table_is_a_table(tmp_path: Path) -> None:
    torch.save(OrderedDict(network().state_dict()), tmp_path / "w.pt")
    assert read(tmp_path / "w.pt").arch == "tiny"


def test_a_pickle_of_millions_of_steps_is_refused_in_both_of_torchs_forms(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(b"\x80\x02]q\0" + b"h\0a" * 600_000 + b".")
    torch.save({"weight": torch.zeros(2), "history": [0.5] * 600_000}, tmp_path / "new.pt")
    for name in ("old.pt", "new.pt"):
        with pytest.raises(DiffcleanError, match="beside its tensors it holds more than 1,000,000 numbers"):
            read(tmp_path / name)
    torch.save(network().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old.pt").logits(IMAGES).shape == (5, 3)


def test_weights_under_a_name_of_their_own_are_found_where_they_are_the_only_ones(tmp_path: Path) -> None:
    torch.save({"student": network().state_dict(), "epoch": 3}, tmp_path / "one.pt")
    assert read(tmp_path / "one.pt").logits(IMAGES).shape == (5, 3)
    torch.save({"student": network().state_dict(), "teacher": network().state_dict()}, tmp_path / "two.pt")
    with pytest.raises(DiffcleanError, match="student, teacher"):
        read(tmp_path / "two.pt")


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_whole_numbers_are_no_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in network().state_dict().items()}, tmp_path / "t.pt")
    with pytest.raises(DiffcleanError, match="whole numbers"):
        read(tmp_path / "t.pt")


def test_weights_are_found_among_thousands_of_other_prefixes(tmp_path: Path) -> None:
    """Each could begin the names of a network, and is not compared with all of its weights."""
    others = {f"{number}.0.weight": torch.ones(1) for number in range(2000)}
    torch.save(others | {f"model.{name}": tensor for name, tensor in network().state_dict().items()}, tmp_path / "w.pt")
    assert read(tmp_path / "w.pt").logits(IMAGES).shape == (5, 3)
