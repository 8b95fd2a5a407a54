"""Compiled forms: made once, recorded whole, kept while they fit, and said why when they do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffclean.data.hashes import hashes_below, sha256_of
from diffclean.engine import openvino
from diffclean.engine.manifest import read_engine_manifest
from diffclean.engine.tensorrt_key import onnx_digest
from diffclean.engine.tensorrt_targets import Profile
from diffclean.errors import DiffcleanError, Interrupted, MissingExtraError, UsageError
from diffclean.export import compiled
from diffclean.export.compiled import Outcome, check_targets, compile_engine
from diffclean.export.forms import CompileOptions, parse_targets
from diffclean.export.onnx import example_inputs
from diffclean.runtime.choose import open_engine
from diffclean.runtime.openvino import graph_of

Log = pytest.LogCaptureFixture
Limit = Callable[[int], AbstractContextManager[None]]
IR = CompileOptions(("onnx", "openvino"), Profile(1, 4, 4))
FILES = ("vae_decoder/openvino.xml", "vae_decoder/openvino.bin")


@pytest.fixture
def place(kept: Path) -> Path:
    return kept


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome


def test_a_form_is_recorded_and_kept(place: Path) -> None:
    fingerprint = read_engine_manifest(place).fingerprint
    assert only(compile_engine(place, IR)).made
    manifest = read_engine_manifest(place)
    form = manifest.form("vae_decoder", "openvino")
    assert form is not None
    assert form.files == {name: sha256_of(place / name) for name in FILES}
    assert set(form.key) == {"runtime_version", "graph", "precision"}
    assert manifest.fingerprint == fingerprint
    assert set(hashes_below(place)) == {*FILES, "vae_decoder/model.onnx", "engine.json"}
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert only(compile_engine(place, IR)) == Outcome(form, made=False)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_the_graphs_hash_is_the_one_that_tensorrt_reckons(place: Path) -> None:
    assert read_engine_manifest(place).graph_sha256("vae_decoder") == onnx_digest(place / "vae_decoder/model.onnx")


def test_the_compiled_form_computes_the_same(place: Path, caplog: Log) -> None:
    manifest = read_engine_manifest(place)
    assert graph_of(place, manifest, "vae_decoder").name == "model.onnx"
    inputs = example_inputs(manifest.components["vae_decoder"].inputs, 3)
    from_onnx = open_engine(place, "openvino", "fp32", threads=1).call("vae_decoder", inputs)
    compile_engine(place, IR)
    assert graph_of(place, read_engine_manifest(place), "vae_decoder").name == "openvino.xml"
    caplog.clear()
    from_ir = open_engine(place, "openvino", "fp32", threads=1).call("vae_decoder", inputs)
    assert all(torch.equal(first, second) for first, second in zip(from_onnx, from_ir, strict=True))
    assert not caplog.records


def change_bytes(place: Path) -> None:
    path = place / FILES[1]
    path.write_bytes(path.read_bytes() + b"\0")


def change_version(place: Path) -> None:
    manifest = read_engine_manifest(place)
    form = manifest.form("vae_decoder", "openvino")
    assert form is not None
    manifest.with_form(replace(form, key={**form.key, "runtime_version": "2020.1"})).write(place)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (change_bytes, "vae_decoder/openvino.bin has sha256"),
        (lambda place: (place / FILES[0]).unlink(), "vae_decoder/openvino.xml is missing"),
        (change_version, "its runtime version is 2020.1, wanted is"),
    ],
)
def test_a_form_that_does_not_fit_is_not_run_and_made_again(
    place: Path, harm: Callable[[Path], None], said: str, caplog: Log
) -> None:
    compile_engine(place, IR)
    harm(place)
    assert open_engine(place, "openvino", threads=1).runtime.name == "openvino"
    assert f"The ONNX graph of vae_decoder is used in place of its openvino form: {said}" in caplog.text
    outcome = only(compile_engine(place, IR))
    assert outcome.made
    assert said in outcome.why
    assert f"Compiling vae_decoder for openvino again: {said}" in caplog.text
    assert not only(compile_engine(place, IR)).made


def test_a_full_disk_leaves_nothing_half_made(place: Path, file_size_limit: Limit) -> None:
    before = hashes_below(place)
    with file_size_limit(2000), pytest.raises(DiffcleanError, match=r"OpenVINO cannot convert .* to its own format"):
        compile_engine(place, IR)
    assert hashes_below(place) == before
    assert sorted(path.name for path in (place / "vae_decoder").iterdir()) == ["model.onnx"]
    assert only(compile_engine(place, IR)).made


def test_a_full_disk_keeps_the_form_that_there_was(place: Path, file_size_limit: Limit) -> None:
    compile_engine(place, IR)
    change_version(place)
    before = hashes_below(place)
    with file_size_limit(2000), pytest.raises(DiffcleanError):
        compile_engine(place, IR)
    assert hashes_below(place) == before


def test_what_a_killed_run_left_is_removed(place: Path) -> None:
    (place / "vae_decoder/.openvino-abc").mkdir()
    compile_engine(place, IR)
    assert not (place / "vae_decoder/.openvino-abc").exists()


def test_two_at_once(place: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        outcomes = [only(each) for each in pool.map(lambda _: compile_engine(place, IR), range(2))]
    assert sorted(outcome.made for outcome in outcomes) == [False, True]
    assert outcomes[0].form == outcomes[1].form


def test_stopped_before_a_component(place: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="before vae_decoder for openvino"):
        compile_engine(place, IR, stop=stop)


def test_a_record_that_is_no_record(place: Path) -> None:
    compile_engine(place, IR)
    path = place / "engine.json"
    path.write_text(path.read_text().replace('"target": "openvino"', '"aim": "openvino"'))
    with pytest.raises(DiffcleanError, match=r"engine.json is damaged"):
        read_engine_manifest(place)


def test_targets() -> None:
    assert parse_targets("openvino") == ("onnx", "openvino")
    assert parse_targets(" tensorrt-rtx ,onnx,openvino") == ("onnx", "openvino", "tensorrt-rtx")
    with pytest.raises(UsageError, match=r"no target 'coreml'(.|\n)*Known: onnx, openvino, tensorrt, tensorrt-rtx"):
        parse_targets("onnx,coreml")


@pytest.mark.parametrize(
    ("batch", "guided", "unet", "others"),
    [
        (Profile(1, 8, 8), False, ["8", "1:8:16"], ["8", "1:8:8"]),
        (Profile(1, 8, 16), True, ["16", "1:16:32"], ["8", "1:8:16"]),
        (Profile(4, 4, 4), True, ["8", "4:8:8"], ["4"]),
    ],
)
def test_guidance_doubles_what_the_denoiser_takes(
    batch: Profile, guided: bool, unet: list[str], others: list[str]
) -> None:
    options = CompileOptions(("tensorrt",), batch, guided)
    assert [str(each) for each in options.profiles("unet")] == unet
    assert [str(each) for each in options.profiles("vae_decoder")] == others


def test_what_cannot_be_compiled_here_is_said_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="`arch` is for TensorRT"):
        check_targets(CompileOptions(("onnx", "openvino"), Profile(1, 1, 1), arch=((8, 6),)))

    def missing() -> str:
        raise MissingExtraError("openvino", "cpu")

    monkeypatch.setattr(compiled, "openvino_version", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'diffclean\[cpu\]'"):
        check_targets(IR)


def test_openvino_tells_its_version() -> None:
    assert openvino.openvino_version()[:2] == "20"


RTX = CompileOptions(("tensorrt-rtx",), Profile(1, 2, 4))


@pytest.fixture
def engine(place: Path) -> Path:
    """Compiled for TensorRT-RTX."""
    pytest.importorskip("tensorrt_rtx")
    assert only(compile_engine(place, RTX)).made
    return place


def test_a_tensorrt_engine_is_recorded_with_its_key(engine: Path) -> None:
    form = read_engine_manifest(engine).form("vae_decoder", "tensorrt-rtx")
    assert form is not None
    assert {"runtime_version", "graph", "precision", "arch", "gpu", "profiles", "flags"} <= set(form.key)
    assert form.key["profiles"] == ["2", "1:2:4"]
    assert form.files == {
        name: sha256_of(engine / name)
        for name in ("vae_decoder/model.tensorrt-rtx.engine", "vae_decoder/model.tensorrt-rtx.json")
    }
    assert not only(compile_engine(engine, RTX)).made


def test_a_tensorrt_engine_for_other_batches_or_gpus_is_made_again(engine: Path) -> None:
    for options, said in (
        (replace(RTX, batch=Profile(1, 3, 3)), "it was made for batches of 2, 1:2:4, wanted is 3, 1:3:3"),
        (replace(RTX, batch=Profile(1, 3, 3), arch=((8, 6),)), "wanted is 8.6"),
    ):
        outcome = only(compile_engine(engine, options))
        assert outcome.made
        assert said in outcome.why
    (engine / "vae_decoder/model.tensorrt-rtx.engine").write_bytes(b"0")
    assert "its bytes were changed" in only(compile_engine(engine, options)).why


def test_a_runtime_takes_what_runs_at_its_batch(engine: Path) -> None:
    """A runtime that finds an engine for more than it needs compiles nothing; for a larger batch it does."""
    fits = replace(RTX, batch=Profile(1, 4, 4), accept=True)
    assert not only(compile_engine(engine, fits)).made
    outcome = only(compile_engine(engine, replace(RTX, batch=Profile(1, 8, 8), accept=True)))
    assert outcome.made
    assert "it was made for batches of 2, 1:2:4, wanted is 8" in outcome.why


def test_a_form_that_is_there_but_not_recorded_is_recorded(engine: Path) -> None:
    """As after a kill between the file and its record."""
    manifest = read_engine_manifest(engine)
    replace(manifest, compiled=[]).write(engine)
    assert not only(compile_engine(engine, RTX)).made
    assert read_engine_manifest(engine) == manifest
