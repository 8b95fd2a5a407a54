"""Schedulers: what solves the same equation is taken, anything else is said before an export, with the key."""

from __future__ import annotations

import inspect
import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.families.registry import family_named, load_model
from diffclean.families.schedulers import NEAREST, parametrisation_of, read_scheduler
from diffclean.variation.schedule import SCHEDULERS, STOCHASTIC, differences, schedule_of, scheduler_for

MADE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}


def model(folder: Path, config: dict[str, Any], listed: str | None = None) -> Path:
    """A folder with a scheduler, which is read before anything else of a model."""
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    if listed is not None:
        index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", listed]}
        (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", sorted(NEAREST))
def test_those_of_the_same_equation_are_sampled(name: str, tmp_path: Path) -> None:
    kind = parametrisation_of(name)
    made = MADE if kind == "betas" else {}
    config = read_scheduler(model(tmp_path, {"_class_name": name, **made}), parametrisations=(kind,))
    ours = scheduler_for(config)
    assert SCHEDULERS[ours][0] == name or differences(ours, config) == [
        f"{ours} is used in place of the model's own scheduler, {name}"
    ]
    schedule = schedule_of(ours, config, 8)
    assert list(schedule.timesteps) == sorted(schedule.timesteps, reverse=True)
    assert 0.8 < schedule.noise_levels[0] <= 1
    assert schedule.noise_levels[-1] < 0.2
    assert bool(schedule.draws) == (ours in STOCHASTIC)


@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "UnCLIPScheduler",
        "IPNDMScheduler",
        "CMStochasticIterativeScheduler",
        "ScoreSdeVeScheduler",
        "NoSuchScheduler",
    ],
)
def test_other_parametrisations_end_before_anything_is_built(name: str, tmp_path: Path) -> None:
    if hasattr(diffusers, name):
        getattr(diffusers, name)().save_pretrained(tmp_path / "scheduler")
    else:
        model(tmp_path, {"_class_name": name})
    for family in ("sd-img2img", "sd-image-variations", "versatile-diffusion", "stable-unclip"):
        with pytest.raises(DiffcleanError, match=f"names the scheduler {name}, which diffclean cannot use") as raised:
            load_model(family_named(family), tmp_path)
        assert "Taken are: DDIMScheduler, " in raised.value.hint
        assert "TCDScheduler, EDMEulerScheduler, " in raised.value.hint
        assert name not in raised.value.hint


@pytest.mark.parametrize(
    ("key", "value", "more"),
    [
        ("prediction_type", "flow_prediction", {}),
        ("prediction_type", ["epsilon"], {}),
        ("use_flow_sigmas", True, {}),
        ("use_dynamic_shifting", True, {}),
        ("rescale_betas_zero_snr", True, {"prediction_type": "epsilon"}),
        ("num_train_timesteps", 10**9, {}),
        ("num_train_timesteps", 10**30, {}),
        ("num_train_timesteps", 0, {}),
        ("num_train_timesteps", True, {}),
        ("num_train_timesteps", "1000", {}),
        ("beta_start", "x", {}),
        ("beta_start", float("nan"), {}),
        ("beta_end", 1e300, {}),
        ("beta_end", -1, {}),
        ("trained_betas", [0.1] * 7, {}),
        ("trained_betas", 5, {}),
        ("timestep_spacing", "even", {}),
        ("beta_schedule", "sigmoid", {"_class_name": "DDPMScheduler"}),
        ("beta_schedule", ["linear"], {}),
        ("trained_betas", [2.0] * 1000, {}),
        ("prediction_type", None, {}),
        ("num_train_timesteps", 1000.5, {}),
        ("num_train_timesteps", None, {}),
        ("steps_offset", 10**9, {}),
        ("steps_offset", -5, {}),
        ("solver_order", 10**9, {"_class_name": "UniPCMultistepScheduler"}),
        ("original_inference_steps", 0, {"_class_name": "LCMScheduler"}),
        ("timestep_scaling", "x", {"_class_name": "LCMScheduler"}),
        ("sigma_max", -1, {"_class_name": "EDMEulerScheduler"}),
        ("sigma_min", 100, {"_class_name": "EDMEulerScheduler"}),
        ("sigma_schedule", "linear", {"_class_name": "EDMDPMSolverMultistepScheduler"}),
        ("shift", 0, {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
        ("shift_terminal", 1.5, {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
        ("stochastic_sampling", True, {"_class_name": "FlowMatchEulerDiscreteScheduler"}),
    ],
)
def test_values_that_make_no_schedule_are_named(key: str, value: Any, more: dict[str, Any], tmp_path: Path) -> None:
    model(tmp_path, {"_class_name": "DDIMScheduler", **MADE, key: value, **more})
    with pytest.raises(DiffcleanError, match=key):
        read_scheduler(tmp_path, parametrisations=("betas", "edm", "flow"))


def test_model_index_decides_the_class(tmp_path: Path) -> None:
    config = read_scheduler(model(tmp_path, {"_class_name": "DDIMScheduler", **MADE}, "EulerDiscreteScheduler"))
    assert scheduler_for(config) == "euler"
    with pytest.raises(DiffcleanError, match="FlowMatchEulerDiscreteScheduler"):
        read_scheduler(model(tmp_path, {"_class_name": "DDIMScheduler"}, "FlowMatchEulerDiscreteScheduler"))
    index = {"_class_name": "X", "scheduler": ["my_code", "DDIMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(DiffcleanError, match=r"not diffusers' own: my_code\.DDIMScheduler"):
        read_scheduler(tmp_path)


def test_image_to_image_begins_where_diffusers_does(model_of: Any, tmp_path: Path) -> None:
    """Its pipeline sets steps_offset to 1 in configurations that say otherwise."""
    place = Path(shutil.copytree(model_of("sd-img2img"), tmp_path / "model"))
    path = place / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps_offset": 0}))
    ours = family_named("sd-img2img").load(place).scheduler
    theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(place).scheduler
    theirs.set_timesteps(8)
    assert list(schedule_of("ddim", ours, 8).timesteps) == [float(t) for t in theirs.timesteps]
    assert ours["steps_offset"] == theirs.config.steps_offset == 1


def test_what_is_not_followed_is_said() -> None:
    own = {"_class_name": "DPMSolverMultistepScheduler", **MADE}
    assert differences("dpm++", own) == []
    changed = {**own, "algorithm_type": "sde-dpmsolver++", "solver_order": 3}
    assert differences("dpm++", changed) == [
        "the model's algorithm_type sde-dpmsolver++ is replaced by dpmsolver++",
        "the model's solver_order 3 is replaced by 2",
    ]


def test_more_steps_than_were_trained_are_a_message() -> None:
    config = {"_class_name": "DDIMScheduler", **MADE}
    with pytest.raises(
        DiffcleanError, match=r"ddim cannot take 1000 steps with .*steps_offset 1.*first step would be 1000"
    ):
        schedule_of("ddim", config, 1000)
    assert len(schedule_of("ddim", config, 500).timesteps) == 500


def test_zero_signal_with_velocity_is_fine_and_finite() -> None:
    config = {"_class_name": "DDIMScheduler", **MADE, "rescale_betas_zero_snr": True}
    config |= {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    assert schedule_of("ddim", config, 8).start == (0.0, 1.0)


def test_infinity_as_diffusers_writes_it_is_read(tmp_path: Path) -> None:
    diffusers.DPMSolverMultistepScheduler(**MADE).save_pretrained(tmp_path / "scheduler")
    assert "Infinity" in (tmp_path / "scheduler" / "scheduler_config.json").read_text()
    assert json.loads(json.dumps(read_scheduler(tmp_path), allow_nan=False))["steps_offset"] == 1


def test_variate_says_it_before_the_export(
    tiny_model: Path,
    tmp_path: Path,
    draw_photos: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from diffclean.cli.main import main

    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    place = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = place / "scheduler" / "scheduler_config.json"
    source = draw_photos(tmp_path / "source", ["a.png"])
    late = {"steps_offset": 1, "timestep_spacing": "leading"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **late}))
    command = ["variate", str(source), "-o", str(tmp_path / "out"), "--engine", str(place)]
    assert main([*command, "--steps", "1000", "--scheduler", "ddim"]) == 1
    assert "steps_offset 1" in capsys.readouterr().err
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_train_timesteps": 10**9}))
    assert main(command) == 1
    assert "num_train_timesteps 1000000000" in capsys.readouterr().err
    assert not list((tmp_path / "cache").glob("engines/*"))


def test_an_engine_whose_schedule_has_no_such_steps_is_refused_before_anything_is_written(
    tiny_engine: Path, tmp_path: Path, draw_photos: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise the output would hold a run with these settings, and refuse the ones that are right."""
    from diffclean.cli.main import main

    engine = Path(shutil.copytree(tiny_engine, tmp_path / "engine"))
    manifest = read_engine_manifest(engine)
    late = {**manifest.scheduler, "steps_offset": 1, "timestep_spacing": "leading"}
    replace(manifest, scheduler=late).write(engine)
    source = draw_photos(tmp_path / "source", ["a.png"])
    command = ["variate", str(source), "-o", str(tmp_path / "out"), "--engine", str(engine)]
    assert main([*command, "--steps", "1000", "--scheduler", "ddim"]) == 1
    assert "steps_offset 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_schedule_is_worked_out_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was changed is not believed, and other settings are other schedules."""
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path))
    config = {"_class_name": "LCMScheduler", **MADE}
    first = schedule_of("lcm", config, 5, 0.8)
    assert any(first.draws)
    with monkeypatch.context() as patch:
        patch.setattr(diffusers, "LCMScheduler", None)
        assert schedule_of("lcm", config, 5, 0.8) == first
        for changed in ({"steps": 6}, {"start": 0.6}, {"config": {**config, "beta_end": 0.02}}):
            with pytest.raises(DiffcleanError):
                schedule_of(**{"name": "lcm", "config": config, "steps": 5, "start": 0.8, **changed})
    (file,) = tmp_path.glob("schedules/*")
    file.write_text(file.read_text().replace("true", "false"))
    assert schedule_of("lcm", config, 5, 0.8) == first


def test_a_schedule_that_the_disk_has_no_room_for_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The temporary file stayed in the cache, where nobody ever removed it."""
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path))
    config = {"_class_name": "LCMScheduler", **MADE}
    with file_size_limit(100):
        first = schedule_of("lcm", config, 5, 0.8)
    assert list((tmp_path / "schedules").iterdir()) == []
    assert schedule_of("lcm", config, 5, 0.8) == first


def test_lcm_takes_no_more_steps_than_it_was_distilled_for() -> None:
    config = {"_class_name": "LCMScheduler", **MADE, "original_inference_steps": 50}
    assert len(schedule_of("lcm", config, 50).timesteps) == 50
    with pytest.raises(DiffcleanError, match=r"lcm cannot take 51 steps with .*original_inference_steps 50"):
        schedule_of("lcm", config, 51)


def test_a_shift_that_depends_on_the_picture_must_be_known() -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    with pytest.raises(DiffcleanError, match="`mu` must be passed"):
        schedule_of("flow", config, 4)
    assert schedule_of("flow", {**config, "mu": 1.0}, 4).timesteps[0] == 1000


def test_beta_sigmas_without_scipy_are_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model(tmp_path, {"_class_name": "EulerDiscreteScheduler", **MADE, "use_beta_sigmas": True})
    with pytest.raises(DiffcleanError, match=r"(?s)use_beta_sigmas, for which diffusers needs scipy.*pip install"):
        read_scheduler(tmp_path)


ODD: tuple[Any, ...] = (None, "x", "", -1, 0, 10**9, 10**400, 1e300, float("inf"), [], {}, ["x"], True)


@pytest.mark.parametrize("name", sorted({cls for cls, _ in SCHEDULERS.values()}))
def test_whatever_a_configuration_says_is_a_schedule_or_a_message(name: str) -> None:
    """Keys that only the library reads: its errors, of any kind, are messages, and no weight is infinite."""
    for key in inspect.signature(getattr(diffusers, name).__init__).parameters:
        for value in ODD if key != "self" else ():
            config = {"_class_name": name, **MADE, key: value}
            try:
                schedule = schedule_of(scheduler_for(config), config, 4)
            except DiffcleanError:
                continue
            numbers = [*schedule.timesteps, *schedule.final, *schedule.start]
            assert all(math.isfinite(number) for number in numbers), (key, value)
