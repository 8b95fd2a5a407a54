"""CLIP's image preprocessing and image encoder as torch modules, so that both become part of the exported graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3
"""Pillow's number for bicubic resampling."""


def bicubic_matrix(size: int, target: int) -> Tensor:
    """The weights of antialiased bicubic resampling as Pillow computes it.

    (target, size) float, a row for each target pixel.

    The kernel is Keys' with a = -0.5, widened by the scale when the image shrinks (Keys 1981, doi
    10.1109/TASSP.1981.1163711).
    """
    scale = size / target
    reach = max(scale, 1.0)
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    distance = ((torch.arange(size, dtype=torch.float64) + 0.5)[None, :] - centres[:, None]).abs() / reach
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def check_processor(processor: Mapping[str, Any], target: int) -> None:
    """Refuse an image processor that differs from `ClipPixels`, because its model would see another picture.

    Args:
        processor: the configuration of the image processor.
        target: the side of the picture that the encoder takes, in pixels.

    Raises:
        DiffcleanError: the processor crops, resamples or scales in another way.
    """
    sides = [_side(processor.get(name, target)) for name in ("size", "crop_size")]
    expected = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": _BICUBIC}
    wrong = [f"{name} {processor[name]}" for name, value in expected.items() if processor.get(name, value) != value]
    wrong += [f"sides of {side} px" for side in sides if side != target]
    if abs((factor := processor.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        wrong.append(f"a rescale factor of {factor}")
    if wrong:
        raise DiffcleanError(
            f"The model's image processor differs from that of CLIP: {', '.join(wrong)}.",
            f"Expected: bicubic to {target} px, scaled by 1/255, normalised. See preprocessor_config.json.",
        )


def _side(size: Any) -> Any:
    """The side of a square that is given as 224, {"shortest_edge": 224} or {"height": 224, "width": 224}."""
    return next(iter(size.values()), None) if isinstance(size, Mapping) else size


class ClipPixels(nn.Module):
    """CLIP's image processor as a module: it resizes (bicubic, antialiased), scales and normalises.

    Resizing is two matrix products, which every runtime computes in the same way. The result is rounded to grey levels
    after each direction, as Pillow and torchvision do.
    """

    def __init__(self, image_size: int, processor: Mapping[str, Any], target: int) -> None:
        super().__init__()
        check_processor(processor, target)
        # These are no buffers, so that they stay in fp32 in half precision: grey levels need fp32.
        self.resample = bicubic_matrix(image_size, target)
        self.mean = torch.tensor(processor.get("image_mean", _MEAN))[:, None, None]
        self.std = torch.tensor(processor.get("image_std", _STD))[:, None, None]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, 3, T, T) float, normalised."""
        image = pixels.float().permute(0, 3, 1, 2)
        resample, mean, std = (constant.to(image.device) for constant in (self.resample, self.mean, self.std))
        if resample.shape[0] != resample.shape[1]:
            image = (image @ resample.T).round().clamp(0, 255)
            image = (resample @ image).round().clamp(0, 255)
        return (image / 255 - mean) / std


class ImageEmbedding(nn.Module):
    """From pixels to CLIP's projected embedding; takes the place `image_encoder`."""

    def __init__(self, encoder: Any, processor: Mapping[str, Any], image_size: int) -> None:
        super().__init__()
        self.pixels = ClipPixels(image_size, processor, encoder.config.image_size)
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 -> (B, D) float."""
        embedding: Tensor = self.encoder(self.pixels(pixels).to(self.encoder.dtype)).image_embeds
        return embedding
