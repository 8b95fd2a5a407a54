"""`diffclean doctor`, and the probing of runtimes and machines behind it."""

import json
import types
from pathlib import Path

import pytest

from diffclean import environment
from diffclean.cli.main import main
from diffclean.data import parquet
from diffclean.doctor import license_line
from diffclean.environment import Gpu
from diffclean.families.registry import recipe_names
from diffclean.runtime import probe

H200 = Gpu("NVIDIA H200", (9, 0), 150 * 2**30, "13.0")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "gpus", lambda: [H200])


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    known = {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(probe, "package_version", known.get)


def test_doctor_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        probe, "_PROBES", {name: lambda name=name: probe.RuntimeStatus(name, False, "no") for name in probe.ORDER}
    )
    assert main(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["auto_runtime"] is None
    assert [status["name"] for status in report["runtimes"]] == list(probe.ORDER)
    assert any("No runtime works" in problem for problem in report["problems"])
    assert report["model"]["name"] == "micro"
    assert "research" in report["model"]["license"]
    recipes = {facts["name"]: facts for facts in report["recipes"]}
    assert sorted(recipes) == recipe_names()
    assert recipes["versatile-diffusion"]["production"] is False
    assert recipes["micro"]["steps"] == 1
    assert recipes["sd-turbo"]["unpinned"] == ["stabilityai/sd-turbo@main"]
    assert recipes["sd-img2img"]["unpinned"] == recipes["micro"]["unpinned"] == []


def test_doctor_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    works = {
        name: lambda name=name: probe.RuntimeStatus(name, name == "torch", "CPU", "", "2.0", "fp32")
        for name in probe.ORDER
    }
    monkeypatch.setattr(probe, "_PROBES", works)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "--runtime auto takes torch" in out
    assert "yes  torch 2.0" in out
    assert "Embedded model micro" in out
    assert "yes  parquet" in out
    assert "sdxl-turbo             Licence: Stability AI Non-Commercial" in out
    assert "2 denoising steps by default" in out


def test_a_format_whose_library_is_missing_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_PROBES", {})
    monkeypatch.setattr(parquet, "NEEDS", {"no_such_library": "tables"}, raising=False)
    main(["doctor", "--json"])
    formats = {one["name"]: one for one in json.loads(capsys.readouterr().out)["formats"]}
    assert (formats["parquet"]["usable"], formats["webdataset"]["usable"]) == (False, True)
    assert formats["parquet"]["hint"] == "pip install 'diffclean[tables]'"


def test_torch_works_here() -> None:
    pytest.importorskip("torch")
    assert probe.probe_one("torch").usable


def test_openvino_says_its_precision() -> None:
    pytest.importorskip("openvino")
    status = probe.probe_one("openvino")
    assert status.usable
    assert status.precision in ("bf16", "fp32")


def test_a_broken_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> types.ModuleType:
        raise OSError("libfoo.so.1: cannot open shared object file\nmore")

    installed(monkeypatch, openvino="2025.0")
    monkeypatch.setattr(probe, "import_openvino", broken)
    status = probe.probe_one("openvino")
    assert not status.usable
    assert status.reason == "it fails: OSError: libfoo.so.1: cannot open shared object file"


def test_without_a_gpu_the_gpu_runtimes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "gpus", list)
    monkeypatch.setattr(probe, "why_no_gpu", lambda: "there is no driver")
    for name in ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"):
        status = probe.probe_one(name)
        assert not status.usable
        assert "needs an NVIDIA GPU: there is no driver" in status.reason


@pytest.mark.usefixtures("gpu")
def test_rtx_does_not_know_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, tensorrt_rtx="1.3")
    assert "compute capability 9.0" in probe.probe_one("tensorrt-rtx").reason


@pytest.mark.usefixtures("gpu")
def test_both_wheels_are_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, onnxruntime="1.20", onnxruntime_gpu="1.20")
    status = probe.probe_one("onnxruntime-cuda")
    assert not status.usable
    assert "pip uninstall" in status.hint


@pytest.mark.usefixtures("gpu")
def test_a_silent_fallback_to_the_cpu_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    installed(monkeypatch, onnxruntime_gpu="1.20")
    real = probe.import_module("onnxruntime")
    fake = types.SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        SessionOptions=real.SessionOptions,
        InferenceSession=lambda model, options, providers: real.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        ),
    )
    monkeypatch.setattr(probe, "import_module", lambda name: fake)
    status = probe.probe_one("onnxruntime-cuda")
    assert not status.usable
    assert "falls back to CPUExecutionProvider" in status.reason


def test_cores_and_memory_respect_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/sys/fs/cgroup/cpu.max": "50000 100000",
        "/proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 8000000 kB",
        "/sys/fs/cgroup/memory.max": str(2**30),
        "/sys/fs/cgroup/memory.current": str(2**29),
    }
    monkeypatch.setattr(environment, "_text", lambda path: files.get(path, ""))
    assert environment.usable_cores() == 0.5
    assert environment.memory_bytes() == {"total": 2**30, "available": 2**29}


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DIFFCLEAN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_dir() == tmp_path / "diffclean"
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "own"))
    assert environment.cache_dir() == tmp_path / "own"
    assert environment.disk_free_bytes(tmp_path / "not" / "yet") > 0


def test_license_line(tmp_path: Path) -> None:
    assert license_line(tmp_path) == ""
    (tmp_path / "README.md").write_text("# Model\n\n**Licence:** research use only\n")
    assert license_line(tmp_path) == "research use only"
