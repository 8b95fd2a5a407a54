"""The denoising loop, on any engine, through diffusers' schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffclean.errors import UsageError
from diffclean.runtime.choose import Engine
from diffclean.variation.seeds import noise_for

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
}
"""Name on the command line -> diffusers' class, and what it is told beside the model's own configuration."""


def scheduler_named(name: str, config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler on the model's own noise schedule.

    Raises:
        UsageError: unknown name.
    """
    import diffusers

    if name not in SCHEDULERS:
        raise UsageError(f"There is no scheduler {name!r}.", f"Known: {', '.join(SCHEDULERS)}.")
    class_name, extra = SCHEDULERS[name]
    cls = getattr(diffusers, class_name)
    accepted = inspect.signature(cls.__init__).parameters
    return cls.from_config({key: value for key, value in config.items() if key in accepted}, **extra)


@dataclass(frozen=True)
class SamplerSettings:
    """What decides a variation beside the engine, the image and its seed.

    Attributes:
        steps: denoising steps for a run from pure noise.
        strength: in (0, 1]: how far from the source; see `Family.look`.
        guidance: classifier-free guidance scale; 1 is off, and halves the work.
        scheduler: one of `SCHEDULERS`.
    """

    steps: int
    strength: float
    guidance: float
    scheduler: str


class Sampler:
    """Makes variations, a batch at a time. Not for several threads at once."""

    def __init__(self, engine: Engine, settings: SamplerSettings) -> None:
        self.engine = engine
        self.settings = settings
        self.image_size = engine.manifest.image_size
        self._scheduler = scheduler_named(settings.scheduler, engine.manifest.scheduler)
        self._look = engine.family.look(settings.strength)
        self._noise_shapes = engine.family.noise_shapes(self.image_size)

    def generate(self, pixels: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Regenerate a batch.

        Args:
            pixels: (B, S, S, 3) uint8 sources.
            seeds: one an image.

        Returns:
            (B, S, S, 3) uint8 variations and (B,) bool, whether every value of an image was finite; both on the CPU.
        """
        engine, look = self.engine, self._look
        family, device = engine.family, engine.runtime.device
        noise = {name: x.to(device) for name, x in noise_for(seeds, self._noise_shapes).items()}
        pixels = pixels.to(device)
        condition = family.condition(engine.call, pixels, noise, look)
        if self._guided:
            condition = _stacked(family.withhold(condition), condition)
        sample, timesteps = self._start(pixels, noise["sample"], look.start)
        for timestep in timesteps:
            predicted = self._predict(sample, timestep, condition)
            sample = self._scheduler.step(predicted, timestep, sample, return_dict=False)[0]
        images, finite = family.decode(engine.call, sample)
        return images.cpu(), finite.cpu()

    @property
    def _guided(self) -> bool:
        return self.settings.guidance != 1

    def _start(self, pixels: Tensor, noise: Tensor, start: float) -> tuple[Tensor, Any]:
        """The first sample and the timesteps still to run, as diffusers' image-to-image pipelines have it."""
        scheduler, steps = self._scheduler, self.settings.steps
        scheduler.set_timesteps(steps, device=noise.device)
        if start >= 1:
            return noise * scheduler.init_noise_sigma, scheduler.timesteps
        first = steps - max(1, min(steps, int(steps * start)))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latent = self.engine.family.encode(self.engine.call, pixels)
        timesteps = scheduler.timesteps[first:]
        return scheduler.add_noise(latent, noise, timesteps[:1].repeat(len(noise))), timesteps

    def _predict(self, sample: Tensor, timestep: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The denoiser's output, guided if asked for; both halves of guidance go in one call."""
        import torch

        scaled = self._scheduler.scale_model_input(sample, timestep)
        if self._guided:
            scaled = torch.cat([scaled, scaled])
        times = torch.full((len(scaled),), float(timestep), device=scaled.device)
        (predicted,) = self.engine.call("unet", {"sample": scaled, "timestep": times, **condition})
        if self._guided:
            withheld, told = predicted.chunk(2)
            predicted = withheld + self.settings.guidance * (told - withheld)
        return predicted


def _stacked(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    return {name: torch.cat([first[name], second[name]]) for name in second}
