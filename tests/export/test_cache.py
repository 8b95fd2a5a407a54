"""Engines that are made on first use: kept, checked, made again, never half there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file

from diffclean.data.hashes import hashes_below
from diffclean.engine.manifest import model_hashes, read_engine_manifest
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.export.cache import ExportOptions, cached_engine, ensured_engine, writable
from diffclean.export.export import Request, export
from diffclean.families.micro import Micro
from diffclean.families.registry import Recipe, recipe_for
from diffclean.runtime.choose import open_engine

Log = pytest.LogCaptureFixture
Limit = Callable[[int], AbstractContextManager[None]]


def exports(caplog: Log) -> int:
    return sum(record.message.startswith("Exporting engine") for record in caplog.records)


def test_what_an_engine_holds(tiny_engine: Path, tiny_model: Path, cache: Path) -> None:
    manifest = read_engine_manifest(tiny_engine)
    assert tiny_engine.parent == cache / "engines"
    assert manifest.family == "micro"
    assert manifest.image_size == 16
    assert manifest.source == {"path": str(tiny_model), "files": model_hashes(tiny_model)}
    assert manifest.scheduler == json.loads((tiny_model / "scheduler/scheduler_config.json").read_text())
    assert {"diffclean", "torch", "onnx", "onnxscript", "opset"} <= set(manifest.tools)
    places = ("image_encoder", "unet", "vae_decoder")
    assert manifest.files == {name: hashes_below(tiny_engine)[name] for name in (f"{p}/model.onnx" for p in places)}
    assert set(hashes_below(tiny_engine)) == {*manifest.files, "engine.json"}
    for name, component in Micro().load(tiny_model).components.items():
        assert (manifest.components[name].inputs, manifest.components[name].outputs) == (
            component.inputs,
            component.outputs,
        )
        assert manifest.components[name].parity["max_relative"] <= 1e-4
    assert [port.name for port in manifest.components["unet"].inputs] == ["sample", "timestep", "view", "view_level"]
    stated = json.loads((tiny_engine / "engine.json").read_text())["fingerprint"]
    assert stated == manifest.fingerprint
    assert not list(tiny_engine.parent.glob(f".{tiny_engine.name}*"))  # others may be exporting at the moment
    assert tiny_engine.stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
def test_an_export_can_be_repeated_elsewhere(
    tiny_engine: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another cache, another place of the model: the same bytes, the same fingerprint."""
    moved = Path(shutil.copytree(tiny_model, tmp_path / "somewhere/else/tiny"))
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    again = cached_engine(recipe_for(str(moved)))
    assert again.name == tiny_engine.name
    assert read_engine_manifest(again).files == read_engine_manifest(tiny_engine).files
    assert read_engine_manifest(again).fingerprint == read_engine_manifest(tiny_engine).fingerprint


def test_a_kept_engine_is_used(recipe: Recipe, caplog: Log) -> None:
    first = cached_engine(recipe)
    assert first.parent == Path(os.environ["DIFFCLEAN_CACHE"]) / "engines"
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert cached_engine(recipe) == first
    assert exports(caplog) == 1
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_a_model_that_moved_keeps_its_engine(recipe: Recipe, kept: Path, tmp_path: Path, caplog: Log) -> None:
    first, fingerprint = kept, read_engine_manifest(kept).fingerprint
    recipe.directory.rename(tmp_path / "moved")
    with pytest.raises(DiffcleanError, match="gone or was changed"):
        open_engine(first, "torch")
    assert cached_engine(replace(recipe, directory=tmp_path / "moved")) == first
    assert exports(caplog) == 0
    assert read_engine_manifest(first).fingerprint == fingerprint
    assert open_engine(first, "torch").runtime.name == "torch"  # which runs the model itself


def test_a_models_card_does_not_matter_and_its_weights_do(recipe: Recipe, kept: Path, caplog: Log) -> None:
    first = kept
    (recipe.directory / "README.md").write_text("A card.")
    assert cached_engine(recipe) == first
    config = recipe.directory / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"clip_sample_range": 2.0}))
    second = cached_engine(recipe)
    assert second != first
    assert read_engine_manifest(second).fingerprint != read_engine_manifest(first).fingerprint
    weights = recipe.directory / "unet/diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert cached_engine(recipe) not in (first, second)
    assert exports(caplog) == 2


def flip(place: Path) -> None:
    path = place / "vae_decoder/model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cyclic(place: Path) -> None:
    """A graph that an attacker wrote, with hashes that fit."""
    path = place / "vae_decoder/model.onnx"
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Identity", ["same"], ["same"]))
    path.write_bytes(model.SerializeToString())
    replace(read_engine_manifest(place), files=hashes_below(place, (".onnx",))).write(place)


def other_engine(place: Path) -> None:
    """A sound engine, but of another model: a cache hit needs the whole key, and a folder's name is a part of it."""
    manifest = read_engine_manifest(place)
    files = {**manifest.source["files"], "unet/config.json": "0" * 64}
    replace(manifest, source={**manifest.source, "files": files}).write(place)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "vae_decoder/model.onnx has sha256"),
        (lambda place: (place / "vae_decoder/model.onnx").unlink(), "vae_decoder/model.onnx is missing"),
        (lambda place: (place / "engine.json").unlink(), "it is incomplete"),
        (lambda place: (place / "engine.json").write_text("{"), "engine.json is damaged"),
        (cyclic, "vae_decoder/model.onnx is damaged: 1 of its nodes form a cycle"),
        (other_engine, "its files differ"),
    ],
)
def test_a_damaged_engine_is_made_again_and_said_so(
    recipe: Recipe, kept: Path, caplog: Log, harm: Callable[[Path], None], said: str
) -> None:
    place, before = kept, hashes_below(kept)
    harm(place)
    assert cached_engine(recipe) == place
    assert f"Exporting mini again: {said}" in caplog.text.replace(f"{place}/", "")
    assert hashes_below(place) == before
    assert exports(caplog) == 1


def test_two_at_once(recipe: Recipe, caplog: Log) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(cached_engine, [recipe, recipe])
    assert first == second
    assert exports(caplog) == 1


@pytest.mark.slow
def test_two_processes_at_once(tiny_model: Path, tmp_path: Path) -> None:
    program = (
        "import logging, sys; logging.basicConfig(level='INFO')\n"
        "from diffclean.export.cache import cached_engine\n"
        "from diffclean.families.registry import recipe_for\n"
        "print(cached_engine(recipe_for(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tiny_model)]
    env = {**os.environ, "DIFFCLEAN_CACHE": str(tmp_path)}
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert sum(err.count("Exporting engine") for _, err in said) == 1
    assert len(list((tmp_path / "engines").glob("*/engine.json"))) == 1


def leftovers() -> list[str]:
    folder = Path(os.environ["DIFFCLEAN_CACHE"]) / "engines"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def test_what_a_killed_export_left_is_removed(recipe: Recipe, kept: Path) -> None:
    place = kept
    shutil.rmtree(place)
    (place.parent / f".{place.name}.export-abc123/unet").mkdir(parents=True)
    (place.parent / ".other-engine-0.export-abc").mkdir()
    assert cached_engine(recipe) == place
    assert sorted(leftovers()) == [".other-engine-0.export-abc", place.name]


def test_an_export_that_fails_half_way_leaves_nothing(recipe: Recipe) -> None:
    with pytest.raises(DiffcleanError, match="could not export Stubborn"):
        cached_engine(replace(recipe, family="unlucky"))
    assert leftovers() == []


def test_a_full_disk(recipe: Recipe, file_size_limit: Limit) -> None:
    with (
        file_size_limit(500),
        pytest.raises(DiffcleanError, match=r"Cannot write the engine to .*: File too large(.|\n)*DIFFCLEAN_CACHE"),
    ):
        cached_engine(recipe)
    assert leftovers() == []
    assert cached_engine(recipe).is_dir()


def test_a_cache_that_cannot_be_written_to(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(DiffcleanError, match=r"Cannot lock .*: Not a directory(.|\n)*DIFFCLEAN_CACHE"):
        cached_engine(recipe)


def test_a_kept_engine_needs_no_writing(recipe: Recipe, kept: Path) -> None:
    """An image may bring its engines along in a folder that its user cannot write to."""
    place = kept
    (lock,) = (Path(os.environ["DIFFCLEAN_CACHE"]) / "locks").iterdir()
    lock.unlink()
    lock.mkdir()  # whoever wants the lock fails now, root too
    assert cached_engine(recipe) == place
    flip(place)
    with pytest.raises(DiffcleanError, match="Cannot lock"):
        cached_engine(recipe)


def test_a_home_in_the_name_of_the_cache(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DIFFCLEAN_CACHE=~/engines` in a file of settings: no shell was there to expand it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DIFFCLEAN_CACHE", "~/mine")
    assert cached_engine(recipe).parent == tmp_path / "mine/engines"


def test_a_model_that_is_not_what_its_sums_say(recipe: Recipe, kept: Path) -> None:
    sums = recipe.directory / "SHA256SUMS.json"
    sums.write_text(json.dumps(hashes_below(recipe.directory)))
    assert cached_engine(recipe) == kept
    config = recipe.directory / "unet/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(DiffcleanError, match=r"was changed: unet/config.json has sha256"):
        cached_engine(recipe)
    sums.write_text("[1]")
    with pytest.raises(DiffcleanError, match=r"SHA256SUMS.json is damaged"):
        cached_engine(recipe)
    assert kept.is_dir()


def test_pickled_weights_count_too(recipe: Recipe, caplog: Log) -> None:
    """What is hashed is what was read from them; another pickle is another model."""
    safe = recipe.directory / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(safe)
    safe.unlink()
    pickled = safe.with_suffix(".bin")
    places = []
    for change in (0.0, 1.0):
        torch.save({name: tensor + change for name, tensor in state.items()}, pickled)
        os.utime(pickled, (change, change))
        places.append(cached_engine(recipe))
        assert cached_engine(recipe) == places[-1]
    assert exports(caplog) == 2
    assert len(set(places)) == 2


def own(recipe: Recipe, place: Path, precision: str = "fp32", overwrite: bool = False) -> str | None:
    made, why = ensured_engine(recipe, ExportOptions(precision), place=place, overwrite=overwrite)
    assert made == place
    return why


def test_a_place_of_ones_own(recipe: Recipe, tmp_path: Path, caplog: Log) -> None:
    place = tmp_path / "deep/inside/engine"
    assert own(recipe, place) == "it is not there"
    before = hashes_below(place)
    assert own(recipe, place) is None
    assert (exports(caplog), hashes_below(place)) == (1, before)
    assert [path.name for path in place.parent.iterdir()] == ["engine"]
    (empty := tmp_path / "empty").mkdir()
    assert own(recipe, empty) is not None


def test_another_engine_is_replaced_only_when_told_to(recipe: Recipe, kept: Path) -> None:
    place = kept
    before = hashes_below(place)
    with pytest.raises(
        DiffcleanError,
        match=r"holds another engine: its options differ .*precision fp32, wanted is bf16(.|\n)*`overwrite`",
    ):
        own(recipe, place, "bf16")
    assert hashes_below(place) == before
    assert "precision fp32, wanted is bf16" in str(own(recipe, place, "bf16", overwrite=True))
    assert read_engine_manifest(place).precision == "bf16"


def test_an_engine_of_another_version_says_so(recipe: Recipe, kept: Path) -> None:
    place = kept
    manifest = read_engine_manifest(place)
    replace(manifest, tools={**manifest.tools, "torch": "1.0"}).write(place)
    with pytest.raises(DiffcleanError, match=rf"its tools differ .*torch 1.0, wanted is {manifest.tools['torch']}"):
        own(recipe, place)
    (place / "engine.json").write_text("{")
    with pytest.raises(DiffcleanError, match=r"engine.json is damaged(.|\n)*`overwrite`"):
        own(recipe, place)
    own(recipe, place, overwrite=True)
    assert read_engine_manifest(place) == manifest


def test_a_changed_file_of_the_same_engine_is_mended(recipe: Recipe, kept: Path) -> None:
    place = kept
    before = hashes_below(place)
    flip(place)
    assert "vae_decoder/model.onnx has sha256" in str(own(recipe, place))
    assert hashes_below(place) == before


def test_what_is_no_engine_is_never_replaced(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.png").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(DiffcleanError, match="photos is a folder that holds something else, not an engine"):
            own(recipe, tmp_path / "photos", overwrite=overwrite)
        with pytest.raises(DiffcleanError, match="file is a file, not an engine"):
            own(recipe, tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "photos/one.png").read_text() == (tmp_path / "file").read_text() == "precious"


def test_two_at_once_in_a_place_of_ones_own(recipe: Recipe, tmp_path: Path, caplog: Log) -> None:
    with ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(lambda _: own(recipe, tmp_path / "engine"), range(2)))
    assert sorted(reasons, key=str) == [None, "it is not there"]
    assert exports(caplog) == 1


def test_a_stopped_export_leaves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="Stopped before vae_decoder"):
        ensured_engine(recipe, place=tmp_path / "mine/engine", stop=stop)
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(Interrupted):
        ensured_engine(recipe, stop=stop)
    assert leftovers() == []


def test_a_full_disk_in_a_place_of_ones_own(recipe: Recipe, tmp_path: Path, file_size_limit: Limit) -> None:
    place = tmp_path / "mine/engine"
    with (
        file_size_limit(500),
        pytest.raises(DiffcleanError, match=r"Cannot write the engine to .*mine/engine(.|\n)*`out`"),
    ):
        own(recipe, place)
    assert list(place.parent.iterdir()) == []


def test_no_model(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="There is no model directory"):
        cached_engine(replace(recipe, directory=tmp_path / "nowhere"))


@pytest.fixture
def prebuilt(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log) -> Path:
    """The recipe's engine in a place of its own, as an image brings it along, and no cache."""
    (tmp_path / "cache").rename(tmp_path / "prebuilt")
    place = tmp_path / "prebuilt/engines" / kept.name
    monkeypatch.setenv("DIFFCLEAN_PREBUILT", str(tmp_path / "prebuilt"))
    caplog.clear()
    return place


def test_an_engine_that_was_made_beforehand_is_used(recipe: Recipe, prebuilt: Path, caplog: Log) -> None:
    """And nothing is written anywhere: a container's file system may be read-only."""
    before = hashes_below(prebuilt)
    assert ensured_engine(recipe) == (prebuilt, None)
    assert open_engine(prebuilt, "torch").runtime.name == "torch"
    assert exports(caplog) == 0
    assert hashes_below(prebuilt) == before
    assert not Path(os.environ["DIFFCLEAN_CACHE"]).exists()


def test_one_that_does_not_fit_is_passed_over(recipe: Recipe, prebuilt: Path, caplog: Log) -> None:
    assert ensured_engine(recipe, ExportOptions("bf16"))[0].parent == Path(os.environ["DIFFCLEAN_CACHE"]) / "engines"
    assert "is not used" not in caplog.text
    flip(prebuilt)
    before = hashes_below(prebuilt)
    place, why = ensured_engine(recipe)
    assert (place.parent, why) == (Path(os.environ["DIFFCLEAN_CACHE"]) / "engines", "it is not there")
    assert f"The engine in {prebuilt} is not used: vae_decoder/model.onnx has sha256" in caplog.text
    assert hashes_below(prebuilt) == before


def test_the_cache_comes_before_what_was_made_beforehand(recipe: Recipe, prebuilt: Path) -> None:
    copy = writable(prebuilt)
    assert copy.parent == Path(os.environ["DIFFCLEAN_CACHE"]) / "engines"
    assert hashes_below(copy) == hashes_below(prebuilt)
    assert cached_engine(recipe) == copy


def test_a_copy_is_made_once_and_mended(prebuilt: Path, caplog: Log) -> None:
    copy = writable(prebuilt)
    (copy / "note").write_text("added")
    assert writable(prebuilt) == writable(copy) == copy
    assert (copy / "note").exists()
    flip(copy)
    assert hashes_below(writable(prebuilt)) == hashes_below(prebuilt)
    assert f"{copy} was changed" in caplog.text


def test_a_form_more_goes_into_a_copy(
    tiny_model: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFCLEAN_PREBUILT", str(tiny_engine.parents[1]))
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    before = hashes_below(tiny_engine)
    report = export(Request(model=str(tiny_model), targets=("onnx", "openvino"), precision="fp32"))
    assert (report.place.parent, report.exported) == (tmp_path / "cache/engines", None)
    assert {form.component for form in report.manifest.compiled} == set(report.manifest.components)
    assert hashes_below(tiny_engine) == before
    assert cached_engine(recipe_for(str(tiny_model))) == report.place


def test_made_beforehand_of_a_model_that_lies_elsewhere_now(recipe: Recipe, prebuilt: Path, tmp_path: Path) -> None:
    """The runtime `torch` reads the model, so the copy says where it is."""
    recipe.directory.rename(tmp_path / "moved")
    place = cached_engine(replace(recipe, directory=tmp_path / "moved"))
    assert place.parent == Path(os.environ["DIFFCLEAN_CACHE"]) / "engines"
    assert open_engine(place, "torch").runtime.name == "torch"
    assert read_engine_manifest(prebuilt).source["path"] == str(recipe.directory)
