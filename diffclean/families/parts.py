"""Modules that families of latent diffusion models share, and how their parts are read from a model directory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError


def read_config(directory: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """The configuration of a part of a model directory.

    Raises:
        DiffcleanError: it is missing or damaged.
    """
    path = directory / part / file
    if not path.is_file():
        raise DiffcleanError(
            f"{directory} is not a whole model: {part}/{file} is missing.",
            "A model directory is what diffusers' `save_pretrained` writes, or a copy of all files of the hub's page.",
        )
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.") from error
    if not isinstance(config, dict):
        raise DiffcleanError(f"{path} is damaged: it holds a {type(config).__name__}.")
    return config


def load_part(cls: Any, directory: Path, part: str, **arguments: Any) -> Any:
    """Read one network of a model directory in fp32, from safetensors alone.

    Args:
        cls: its class in diffusers or transformers.
        directory: the model directory.
        part: its folder.
        arguments: for `from_pretrained`.

    Raises:
        DiffcleanError: it is missing, of another class, or its weights do not fit.
    """
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
    found = read_config(directory, part)
    name = found.get("_class_name") or (found.get("architectures") or [cls.__name__])[0]
    # A CLIP model with a projection may say that it is one without: the weights decide, below.
    if cls.__name__ not in (name, f"{name}WithProjection"):
        raise DiffcleanError(f"{directory / part} holds a {name}; a {cls.__name__} was expected.")
    try:
        module, read = cls.from_pretrained(
            directory / part, use_safetensors=True, local_files_only=True, output_loading_info=True, **arguments
        )
    except Exception as error:  # a dozen kinds, from a missing file to the shapes in it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DiffcleanError(f"The weights in {directory / part} cannot be read: {reason}") from error
    # Buffers like CLIP's position_ids were saved by older versions and are made anew.
    missing = [name for name in read["missing_keys"] if not name.endswith("position_ids")]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DiffcleanError(
            f"The weights in {directory / part} are not those of a {cls.__name__}: "
            f"{', '.join(sorted(missing)[:3])}{more} missing."
        )
    return module.float().eval().requires_grad_(False)


class LatentDecoder(nn.Module):
    """A VAE's decoder to pixels and a flag: the `vae_decoder` place."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.quant = vae.post_quant_conv if vae.config.use_post_quant_conv else nn.Identity()
        self.scale, self.shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0

    def forward(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S/f, S/f) float latent -> ((B, S, S, 3) uint8, (B,) bool: every value was finite)."""
        image = self.decoder(self.quant(sample / self.scale + self.shift)).float()
        finite = torch.isfinite(image).flatten(1).all(dim=1)
        pixels = (image.clamp(-1, 1) * 127.5 + 127.5).round()
        return pixels.to(torch.uint8).permute(0, 2, 3, 1), finite


class LatentEncoder(nn.Module):
    """Pixels to a draw from a VAE's posterior: the `vae_encoder` place."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant = vae.quant_conv if vae.config.use_quant_conv else nn.Identity()
        self.scale, self.shift = vae.config.scaling_factor, vae.config.shift_factor or 0.0

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        """(B, S, S, 3) uint8, (B, C, S/f, S/f) standard normal -> (B, C, S/f, S/f) scaled latent."""
        image = pixels.permute(0, 3, 1, 2).to(noise.dtype) / 127.5 - 1
        mean, log_variance = self.quant(self.encoder(image)).chunk(2, dim=1)
        latent = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
        return (latent - self.shift) * self.scale


def bicubic_matrix(size: int, target: int) -> Tensor:
    """(target, size) float: a row of bicubic resampling weights for each target pixel, antialiased, as Pillow has them.

    Keys' kernel with a = -0.5, widened by the scale when shrinking (Keys 1981, doi 10.1109/TASSP.1981.1163711).
    """
    scale = size / target
    reach = max(scale, 1.0)
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    distance = ((torch.arange(size, dtype=torch.float64) + 0.5)[None, :] - centres[:, None]).abs() / reach
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return (weights / weights.sum(dim=1, keepdim=True)).float()


class ClipPixels(nn.Module):
    """What CLIP's image processor does, inside the graph: resize (bicubic, antialiased), scale, normalise.

    Resizing is two matrix products, which every runtime computes alike. Rounded to grey levels after each direction, as
    Pillow and torchvision do.
    """

    def __init__(self, image_size: int, processor: dict[str, Any], target: int) -> None:
        super().__init__()
        # No buffers: they stay in fp32 when the module goes to half precision, as grey levels have to.
        self.resample = bicubic_matrix(image_size, target)
        self.mean = torch.tensor(processor.get("image_mean", _CLIP_MEAN))[:, None, None]
        self.std = torch.tensor(processor.get("image_std", _CLIP_STD))[:, None, None]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, 3, T, T) float, normalised."""
        image = pixels.permute(0, 3, 1, 2).float()
        resample, mean, std = (constant.to(image.device) for constant in (self.resample, self.mean, self.std))
        if resample.shape[0] != resample.shape[1]:
            image = (image @ resample.T).round().clamp(0, 255)
            image = (resample @ image).round().clamp(0, 255)
        return (image / 255 - mean) / std


class ImageEmbedding(nn.Module):
    """Pixels to CLIP's projected embedding: the `image_encoder` place."""

    def __init__(self, encoder: Any, processor: dict[str, Any], image_size: int) -> None:
        super().__init__()
        self.pixels = ClipPixels(image_size, processor, encoder.config.image_size)
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, D) float."""
        embedding: Tensor = self.encoder(self.pixels(pixels).to(self.encoder.dtype)).image_embeds
        return embedding


_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def latent_factor(vae: Any) -> int:
    """How many pixels a side one latent stands for."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def checked_size(image_size: int | None, native: int, factor: int) -> int:
    """The square's side in pixels.

    Raises:
        DiffcleanError: the network cannot work at that size.
    """
    size = image_size or native
    # Every down-sampling of the U-Net halves the latent; eight latents a side are the least that is of any use.
    if size % (8 * factor) or size < 8 * factor:
        near = max(1, math.floor(size / (8 * factor) + 0.5)) * 8 * factor
        raise DiffcleanError(
            f"This model cannot regenerate squares of {size} px: a multiple of {8 * factor} is needed.",
            f"Try: --size {near}",
        )
    return size
