"""What a trigger can travel through: a patch is added to a picture, and what reaches the sampler is compared.

The networks have random weights and let everything through, so this shows which ways there are, and not how much of a
trigger passes by them in a trained model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_models import MODELS
from torch import Tensor

from diffclean.families.base import Model, noise_shapes
from diffclean.families.registry import family_named
from diffclean.families.seeds import noise_for

REACHES: dict[str, set[str]] = {
    "instruct-pix2pix": {"source"},
    "ip-adapter": {"tokens"},
    "ip-adapter-sdxl": {"tokens"},
    "kandinsky": {"image_embeds"},
    "sd-image-variations": {"image_embeds"},
    "sd-img2img": set(),
    "sdxl-img2img": set(),
    "stable-unclip": {"image_embeds"},
    "versatile-diffusion": {"tokens"},
}
"""Family -> the inputs of its denoiser that depend on the picture. Below strength 1, the first sample does too."""


class Probe:
    """A small model's torch modules on a picture; the noise is the same for every picture."""

    def __init__(self, model: Model) -> None:
        self.model, self.family = model, family_named(model.family)
        self.noise = noise_for([7], noise_shapes(model.components))

    def call(self, name: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        component = self.model.components[name]
        with torch.no_grad():
            outputs = component.module(*(inputs[port.name] for port in component.inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def condition(self, picture: Tensor) -> dict[str, Tensor]:
        return self.family.condition(self.call, picture, self.noise, self.family.look(0.5))

    def predicted(self, condition: dict[str, Tensor]) -> Tensor:
        """From the same sample."""
        sample = self.noise["sample"]
        return self.call("unet", {"sample": sample, "timestep": torch.tensor([500.0]), **condition})[0]

    def start(self, picture: Tensor) -> Tensor:
        return self.family.encode(self.call, picture, self.noise)


@pytest.mark.parametrize("family", sorted(MODELS))
def test_a_patch_reaches_the_sampler_by_the_known_ways(family: str, model_of: Any, squares: np.ndarray) -> None:
    probe = Probe(family_named(family).load(model_of(family)))
    picture = torch.from_numpy(squares[:1])
    patched = picture.clone()
    patched[:, -8:, -8:] = 255 - patched[:, -8:, -8:]
    before, after = probe.condition(picture), probe.condition(patched)
    assert {name for name in before if not torch.equal(before[name], after[name])} == REACHES[family]
    change = float((probe.predicted(before) - probe.predicted(after)).abs().max())
    assert (change > 1e-4) == bool(REACHES[family])
    assert (probe.start(picture) - probe.start(patched)).abs().max() > 1e-3
    withheld = [probe.predicted(probe.family.withhold(condition) or condition) for condition in (before, after)]
    assert torch.equal(*withheld)  # the unconditional half of guidance knows nothing of the picture


@pytest.mark.parametrize("family", sorted(MODELS))
def test_the_quality_gate_sees_what_the_sampler_is_told_by_the_image_encoder(
    family: str, model_of: Any, squares: np.ndarray
) -> None:
    probe = Probe(family_named(family).load(model_of(family)))
    assert hasattr(probe.family, "features") == ("image_encoder" in probe.model.components)
    if not hasattr(probe.family, "features"):
        return
    noise = {name: torch.zeros_like(each) for name, each in probe.noise.items()}
    first, second = (probe.family.features(probe.call, torch.from_numpy(square[None]), noise) for square in squares)
    (told,) = REACHES[family]
    flat = probe.condition(torch.from_numpy(squares[:1]))[told].flatten(1)
    if family == "stable-unclip":  # its sampler is told noise and the level of the noise, too
        assert 2 * first.shape[1] == flat.shape[1]
    else:
        assert torch.equal(first, flat)
    assert not torch.equal(first, second)
