"""The denoising loop, with any engine.

With x_T the first sample and D_1, D_2, ... the outputs of the denoiser, the loop computes the input of each step and
the final sample as weighted sums of x_T, the D's and the noise of a stochastic scheduler; `schedule` derives the
weights from the scheduler. Guidance is classifier-free guidance, D = D(nothing) + g (D(condition) - D(nothing)), where
g = 1 + w in the notation of Ho and Salimans 2022 (arXiv 2207.12598, eq. 6).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from diffclean.families.base import Look, noise_shapes
from diffclean.families.seeds import noise_for
from diffclean.runtime.choose import Engine
from diffclean.variation.schedule import schedule_of, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
_ALWAYS_TOLD = {"sample", "timestep"}


@dataclass(frozen=True)
class SamplerSettings:
    """The settings that determine a variation, apart from the engine, the image and its seed.

    Attributes:
        steps: the number of denoising steps of a run from pure noise.
        strength: in (0, 1], how far a variation may differ from its source; see `Family.look`.
        guidance: the scale g of classifier-free guidance; 1 turns it off and halves the work.
        scheduler: one of `schedule.SCHEDULERS`.
        guidance_interval: the noise levels (lowest, highest; 1 is pure noise) between which guidance is on; outside of
            them a step costs half (Kynkaanniemi et al., "Applying Guidance in a Limited Interval", arXiv 2404.07724).
    """

    steps: int
    strength: float
    guidance: float
    scheduler: str
    guidance_interval: tuple[float, float] = (0.0, 1.0)


class Sampler:
    """Makes variations, one batch at a time.

    Args:
        engine: the engine that runs the model.
        settings: the settings, see `SamplerSettings`.
        look: how much of the sources the model may see, for measurements; None stands for what the strength means to
            the model.

    Attributes:
        noise_shapes: the noise that one image needs, see `base.noise_shapes`, with that of a stochastic scheduler.
    """

    def __init__(self, engine: Engine, settings: SamplerSettings, look: Look | None = None) -> None:
        inputs = {port.name for port in engine.manifest.components["unet"].inputs}
        if settings.guidance != 1 and inputs == _ALWAYS_TOLD:
            log.warning(
                "Guidance is not used: a model of the family %s has no condition that could be withheld.",
                engine.manifest.family,
            )
            settings = replace(settings, guidance=1.0)
        # A model that was distilled with guidance is given its scale, and needs no second half.
        self._distilled = settings.guidance if "guidance" in inputs else None
        if self._distilled is not None:
            settings = replace(settings, guidance=1.0)
        self.engine = engine
        self.settings = settings
        self.image_size = engine.manifest.image_size
        self._look = look or engine.family.look(settings.strength, inputs)
        self._schedule = schedule_of(settings.scheduler, engine.manifest.scheduler, settings.steps, self._look.start)
        self.noise_shapes = noise_shapes(engine.manifest.components)
        # These come last, so that what a deterministic scheduler draws does not change.
        draws = [step for step, drawn in enumerate(self._schedule.draws) if drawn]
        self.noise_shapes |= {_noise_after(step): self.noise_shapes["sample"] for step in draws}

    def generate(
        self, pixels: Tensor, seeds: Sequence[int], own: Sequence[tuple[float, float]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Regenerate a batch.

        Args:
            pixels: (B, S, S, 3) uint8 sources.
            seeds: one seed for each image.
            own: for each image the number of its own pixels across the square, vertically and horizontally
                (`Placement.own`); None stands for as many as the square has.

        Returns:
            (B, S, S, 3) uint8 variations and (B,) bool, whether all values of an image were finite; both on the CPU.
        """
        engine, schedule = self.engine, self._schedule
        device = engine.runtime.device
        noise = {name: x.to(device, non_blocking=True) for name, x in noise_for(seeds, self.noise_shapes).items()}
        pixels = pixels.to(device, non_blocking=True)
        look = self._look if own is None else replace(self._look, own=_as_tensor(own))
        condition = engine.family.condition(engine.call, pixels, noise, look)
        if self._distilled is not None:
            condition["guidance"] = noise["sample"].new_full((len(pixels),), self._distilled)
        both = _stacked(engine.family.withhold(condition), condition) if self.settings.guidance != 1 else condition
        of_latent, of_noise = schedule.start
        sample = noise["sample"] * of_noise
        if of_latent:
            sample.add_(engine.family.encode(engine.call, pixels, noise), alpha=of_latent)
        seen = [sample]
        for step, timestep in enumerate(schedule.timesteps):
            scaled = weighted_sum(schedule.inputs[step], seen)
            guided = self._guided(schedule.noise_levels[step])
            seen.append(self._predict(scaled, timestep, both if guided else condition, guided))
            if _noise_after(step) in noise:
                seen.append(noise[_noise_after(step)])
        images, finite = engine.family.decode(engine.call, weighted_sum(schedule.final, seen))
        return images.cpu(), finite.cpu()

    def _guided(self, noise_level: float) -> bool:
        lowest, highest = self.settings.guidance_interval
        return self.settings.guidance != 1 and lowest <= noise_level <= highest

    def _predict(self, scaled: Tensor, timestep: float, condition: Mapping[str, Tensor], guided: bool) -> Tensor:
        """The output of the denoiser; both halves of guidance are computed in one call."""
        import torch

        if guided:
            scaled = torch.cat([scaled, scaled])
        times = torch.full((len(scaled),), timestep, device=scaled.device)
        (predicted,) = self.engine.call("unet", {"sample": scaled, "timestep": times, **condition})
        if guided:
            withheld, guided_by = predicted.chunk(2)
            predicted = withheld + self.settings.guidance * (guided_by - withheld)
        return predicted


def _noise_after(step: int) -> str:
    """The name of the noise that a stochastic scheduler adds after a step."""
    return f"after step {step}"


def _as_tensor(numbers: Sequence[tuple[float, float]]) -> Tensor:
    import torch

    return torch.tensor(numbers, dtype=torch.float32)


def _stacked(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    return {name: torch.cat([first[name], second[name]]) for name in second}
