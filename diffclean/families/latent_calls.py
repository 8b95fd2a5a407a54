"""Methods that the families of latent models share: how the compiled VAE is called. This file does not import torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from diffclean.families.base import Look

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


def share_of_schedule(strength: float, inputs: Collection[str] = ()) -> Look:
    """`Family.look` for families in which the strength is the share of the schedule that is run, and nothing else."""
    return Look(start=strength, level=strength)


def encode(call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """`Family.encode`: a sample of the VAE's posterior."""
    (latent,) = call("vae_encoder", {"pixels": pixels, "noise": noise["vae_encoder"]})
    return latent


def decode(call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
    """`Family.decode`: the pixels and the `finite` flag, both from the decoder graph."""
    pixels, finite = call("vae_decoder", {"sample": sample})
    return pixels, finite
