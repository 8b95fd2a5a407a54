"""The sampler against diffusers: the same loop, written out with the plain torch network and diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor
from torch.nn import functional

from diffclean.errors import DiffcleanError, UsageError
from diffclean.families.base import Look
from diffclean.families.micro import Micro
from diffclean.families.micro_model import MicroUNet
from diffclean.runtime.choose import Engine, open_engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.schedule import SCHEDULERS, STOCHASTIC, scheduler_named, usable_schedulers

DPM = {"algorithm_type": "dpmsolver++", "solver_order": 2}
REFERENCES = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, DPM),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "dpm++-karras": (diffusers.DPMSolverMultistepScheduler, {**DPM, "use_karras_sigmas": True}),
    "euler-karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler-a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "tcd": (diffusers.TCDScheduler, {}),
    "edm": (diffusers.EDMEulerScheduler, {}),
    "edm-dpm++": (diffusers.EDMDPMSolverMultistepScheduler, DPM),
    "flow": (diffusers.FlowMatchEulerDiscreteScheduler, {}),
}
EDM = {"_class_name": "EDMEulerScheduler", "sigma_max": 5.0, "sigma_min": 0.02, "prediction_type": "v_prediction"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
VELOCITY = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
OTHERS = {"edm": EDM, "edm-dpm++": EDM, "flow": FLOW, "euler-a": VELOCITY}
"""What replaces the noise schedule of the small model, for schedulers that do not fit it."""
WRONG = {
    "dpm++-karras": {"use_karras_sigmas": False},
    "euler-karras": {"use_karras_sigmas": False},
    "euler-a": {"timestep_spacing": "trailing"},
    "lcm": {"original_inference_steps": 20},
    "tcd": {"original_inference_steps": 20},
    "edm": {"sigma_data": 0.8},
    "edm-dpm++": {"sigma_schedule": "exponential"},
    "flow": {"shift": 2.5},
}
"""A change of diffusers' scheduler that must show."""
SEEDS = [3, 2**64 - 1, 17]
NO_VIEW = 1.25  # what training calls "no view"


class FromNoisedSource(Micro):
    """Begins at the noised source, as Stable Diffusion's image-to-image does."""

    def look(self, strength: float, inputs: Collection[str] = ()) -> Look:
        return Look(start=strength, level=0.2)


@pytest.fixture(scope="module")
def engine(tiny_engine: Path) -> Engine:
    return open_engine(tiny_engine, "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> MicroUNet:
    return MicroUNet.from_pretrained(tiny_model / "unet").float().eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def psnr(first: Tensor, second: Tensor) -> float:
    error = float(((first.double() - second.double()) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def engine_for(name: str, engine: Path) -> Engine:
    """The small engine, with a noise schedule that a scheduler fits."""
    opened = open_engine(engine, "onnxruntime", threads=1)
    if name in OTHERS:
        opened.manifest = replace(opened.manifest, scheduler=OTHERS[name])
    return opened


@dataclass
class Loop:
    """Diffusers' own loop with the plain network, one batch at a time."""

    network: MicroUNet
    model: Path
    monkeypatch: pytest.MonkeyPatch

    @torch.no_grad()
    def __call__(
        self, name: str, pixels: Tensor, steps: int, level: float, guidance: float, start: float, **changes: Any
    ) -> Tensor:
        cls, extra = REFERENCES[name]
        config = OTHERS.get(name) or diffusers.DDIMScheduler.from_pretrained(self.model / "scheduler").config
        scheduler = cls.from_config(config, **{**extra, **changes})
        sample, view, later = torch.empty(3, 3, 16, 16), torch.empty(3, 3, 8, 8), torch.empty(steps, 3, 3, 16, 16)
        image = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        for index, seed in enumerate(SEEDS):
            generator = torch.Generator().manual_seed(seed)
            sample[index] = torch.randn(3, 16, 16, generator=generator)
            view[index] = functional.avg_pool2d(image[index], 2) + level * torch.randn(3, 8, 8, generator=generator)
            for step in range(steps):
                later[step, index] = torch.randn(3, 16, 16, generator=generator)
        draws = iter(later)
        if name in STOCHASTIC:
            self.monkeypatch.setattr(f"{cls.__module__}.randn_tensor", lambda *_, **__: next(draws))
        scheduler.set_timesteps(steps)
        timesteps = scheduler.timesteps
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # Karras' spacing may have a timestep twice
        if start < 1:
            timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(
                SimpleNamespace(scheduler=scheduler), steps, start, "cpu"
            )
            times = timesteps[:1].repeat(3)
            if name == "flow":
                sample = scheduler.scale_noise(image, times, sample)
            else:
                sample = scheduler.add_noise(image, sample, times)
        else:
            sample = sample * getattr(scheduler, "init_noise_sigma", 1)
        for timestep in timesteps:
            scaled = scheduler.scale_model_input(sample, timestep) if name != "flow" else sample
            times = timestep.float().expand(3)
            predicted = self.network(scaled, times, view, torch.full((3,), level))
            if guidance != 1:
                withheld = self.network(scaled, times, torch.zeros_like(view), torch.full((3,), NO_VIEW))
                predicted = withheld + guidance * (predicted - withheld)
            sample = scheduler.step(predicted, timestep, sample).prev_sample
        return (sample.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.fixture
def loop(network: MicroUNet, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(network, tiny_model, monkeypatch)


@pytest.mark.parametrize("guidance", [1.0, 0.0, 2.5])
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_from_pure_noise(tiny_engine: Path, loop: Loop, pixels: Tensor, name: str, guidance: float) -> None:
    sampler = Sampler(engine_for(name, tiny_engine), SamplerSettings(6, 0.3, guidance, name))
    made, finite = sampler.generate(pixels, SEEDS)
    expected = loop(name, pixels, 6, 0.3, guidance, start=1)
    assert made.shape == pixels.shape
    assert finite.all()
    assert made.float().std(dim=(1, 2, 3)).min() > 10  # a picture: flat images would all be alike
    assert psnr(made, expected) > 50
    again, _ = sampler.generate(pixels, SEEDS)
    assert torch.equal(again, made)  # schedulers keep a history, and it must not outlive a batch


@pytest.mark.parametrize("name", sorted(WRONG))
def test_another_schedule_is_another_picture(tiny_engine: Path, loop: Loop, pixels: Tensor, name: str) -> None:
    """So the comparison above sees it: this network is small, and might have taken no notice."""
    made, _ = Sampler(engine_for(name, tiny_engine), SamplerSettings(6, 0.3, 1.0, name)).generate(pixels, SEEDS)
    assert psnr(made, loop(name, pixels, 6, 0.3, 1.0, 1.0, **WRONG[name])) < 40


@pytest.mark.parametrize("name", sorted(STOCHASTIC))
def test_the_noise_between_steps_is_the_images_own(tiny_engine: Path, pixels: Tensor, name: str) -> None:
    sampler = Sampler(engine_for(name, tiny_engine), SamplerSettings(4, 0.3, 1.0, name))
    made, _ = sampler.generate(pixels, SEEDS)
    alone, _ = sampler.generate(pixels[1:2], SEEDS[1:2])
    assert (alone.int() - made[1:2].int()).abs().max() <= 1
    same = pixels[:1].expand(3, -1, -1, -1)
    first, second, _ = sampler.generate(same, SEEDS)[0]
    assert psnr(first, second) < 30


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.99])
@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_from_the_noised_source(tiny_engine: Path, loop: Loop, pixels: Tensor, name: str, strength: float) -> None:
    engine = engine_for(name, tiny_engine)
    engine.family = FromNoisedSource()
    steps = 6
    made, _ = Sampler(engine, SamplerSettings(steps, strength, 1.0, name)).generate(pixels, SEEDS)
    assert psnr(made, loop(name, pixels, steps, 0.2, 1.0, strength)) > 50


@pytest.mark.parametrize(("name", "taken"), [("ddim", "flow"), ("lcm", "edm"), ("flow", "ddim"), ("edm", "ddim")])
def test_a_scheduler_of_another_equation_is_refused(tiny_engine: Path, name: str, taken: str) -> None:
    engine = engine_for(taken, tiny_engine)
    with pytest.raises(UsageError, match=f"{name} does not fit this model") as raised:
        Sampler(engine, SamplerSettings(4, 0.2, 1.0, name))
    assert taken in raised.value.hint


def test_a_kind_of_prediction_that_diffusers_does_not_take_is_said(engine: Engine) -> None:
    with pytest.raises(DiffcleanError, match=r"euler-a cannot take 4 steps with .*prediction_type sample"):
        Sampler(engine, SamplerSettings(4, 0.2, 1.0, "euler-a"))


def test_a_strength_of_less_than_one_step_is_refused(tiny_engine: Path) -> None:
    """diffusers would run no step and hand the source back; one step would begin where little is left of it."""
    engine = open_engine(tiny_engine, "onnxruntime", threads=1)
    engine.family = FromNoisedSource()
    with pytest.raises(UsageError, match="less than one") as raised:
        Sampler(engine, SamplerSettings(4, 0.2, 1.0, "ddim"))
    assert "at least 5" in raised.value.hint


def test_less_of_the_schedule_stays_nearer_to_the_source(tiny_engine: Path, pixels: Tensor) -> None:
    """With a network that hands back its input, what is left of the source can be measured."""
    engine = open_engine(tiny_engine, "onnxruntime", threads=1)
    engine.family = FromNoisedSource()
    call = engine.call
    engine.call = lambda name, inputs: (inputs["sample"],) if name == "unet" else call(name, inputs)  # type: ignore[method-assign]
    errors = []
    for strength in (0.1, 0.4, 0.7, 0.9):
        made, _ = Sampler(engine, SamplerSettings(10, strength, 1.0, "ddim")).generate(pixels, SEEDS)
        errors.append(float((made.float() - pixels.float()).abs().mean()))
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0]


def test_look_is_monotone() -> None:
    strengths = np.linspace(0.001, 1, 50)
    looks = [Micro().look(float(strength)) for strength in strengths]
    assert all(one.level < other.level for one, other in pairwise(looks))
    assert looks[-1] == Look(start=1.0, level=1.0)


def test_a_stronger_look_shows_less_of_the_source(engine: Engine, pixels: Tensor) -> None:
    seen = functional.avg_pool2d(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, 2)
    noise = {"image_encoder": torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))}
    errors = []
    for strength in (0.05, 0.3, 0.6, 1.0):
        told = engine.family.condition(engine.call, pixels, noise, engine.family.look(strength))
        errors.append(float((told["view"] - seen).std()))
        assert told["view_level"].tolist() == pytest.approx([strength] * 3)
    assert errors == pytest.approx([0.05, 0.3, 0.6, 1.0], rel=0.1)


def test_strength_changes_the_outcome(engine: Engine, pixels: Tensor) -> None:
    settings = [SamplerSettings(4, strength, 1.0, "ddim") for strength in (0.05, 0.5, 1.0)]
    weak, middle, strong = (Sampler(engine, each).generate(pixels, SEEDS)[0].float() for each in settings)
    assert (weak - middle).abs().mean() > 1
    assert (middle - strong).abs().mean() > 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_batch_sizes_stay_within_one_grey_level(engine: Engine, guidance: float) -> None:
    pixels = torch.randint(0, 256, (8, 16, 16, 3), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    sampler = Sampler(engine, SamplerSettings(5, 0.4, guidance, "ddim"))
    whole, _ = sampler.generate(pixels, list(range(8)))
    for size in (1, 3, 5):
        parts = [sampler.generate(pixels[i : i + size], list(range(8))[i : i + size])[0] for i in range(0, 8, size)]
        assert (torch.cat(parts).int() - whole.int()).abs().max() <= 1


def test_an_image_depends_on_its_own_row_alone(engine: Engine, pixels: Tensor) -> None:
    sampler = Sampler(engine, SamplerSettings(4, 0.4, 1.0, "ddim"))
    made, _ = sampler.generate(pixels, SEEDS)
    order = [2, 0, 1]
    moved, _ = sampler.generate(pixels[order], [SEEDS[i] for i in order])
    assert torch.equal(moved, made[order])
    others = torch.stack([pixels[0], 255 - pixels[1], 255 - pixels[2]])
    alone, _ = sampler.generate(others, [SEEDS[0], 1, 2])
    assert torch.equal(alone[0], made[0])
    assert not torch.equal(alone[1], made[1])


def test_noise_that_is_not_finite_shows_in_its_own_row(engine: Engine, pixels: Tensor) -> None:
    class Broken(Micro):
        def condition(self, *args: object) -> dict[str, Tensor]:
            told = super().condition(*args)  # type: ignore[arg-type]
            told["view"][1, 0, 0, 0] = float("inf")
            return told

    broken = open_engine(engine.directory, "onnxruntime", threads=1)
    broken.family = Broken()
    for name in sorted({*usable_schedulers(engine.manifest.scheduler)} - {*OTHERS}):
        _, finite = Sampler(broken, SamplerSettings(4, 0.4, 1.0, name)).generate(pixels, SEEDS)
        assert finite.tolist() == [True, False, True], name


def test_unknown_scheduler() -> None:
    with pytest.raises(UsageError, match="Known: ddim, dpm"):
        scheduler_named("heun", {})
