"""Methods that several families of latent models share: how compiled components are called.

This file does not import torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from diffclean.errors import UsageError
from diffclean.families.base import Look

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.families.base import Call


def share_of_schedule(strength: float, inputs: Collection[str] = ()) -> Look:
    """`Family.look` for families in which the strength is the share of the schedule that is run, and nothing else."""
    return Look(start=strength, level=strength)


def share_from_source(strength: float, inputs: Collection[str] = ()) -> Look:
    """`Family.look` for families that know the source only from the noised latent at which denoising begins.

    Raises:
        UsageError: the strength is 1, at which the pictures would have nothing to do with the sources.
    """
    if strength >= 1:
        raise UsageError(
            "`strength` 1 would leave nothing of the images: denoising would start from noise alone, and this "
            "model is given no other information about them.",
            "Give a smaller value, for example: `strength` 0.5",
        )
    return share_of_schedule(strength)


def tokens(call: Call, pixels: Tensor, noise: Mapping[str, Tensor], look: Look) -> dict[str, Tensor]:
    """`Family.condition`: the tokens that the image encoder makes of a picture, and the flag that they are used."""
    (made,) = call("image_encoder", {"pixels": pixels})
    return {"tokens": made, "told": made.new_ones(len(made))}


def zeros(condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`Family.withhold`: zeros for all inputs. Where there is a flag, the graph then uses constants in their place."""
    return {name: value.new_zeros(value.shape) for name, value in condition.items()}


def features(call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """`features` of a family: everything that the image encoder makes of a picture, as (B, D)."""
    (made,) = call("image_encoder", {"pixels": pixels})
    return made.flatten(1)


def encode(call: Call, pixels: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """`Family.encode`: a sample of the VAE's posterior."""
    (latent,) = call("vae_encoder", {"pixels": pixels, "noise": noise["vae_encoder"]})
    return latent


def decode(call: Call, sample: Tensor) -> tuple[Tensor, Tensor]:
    """`Family.decode`: the pixels and the `finite` flag, both from the decoder graph."""
    pixels, finite = call("vae_decoder", {"sample": sample})
    return pixels, finite
