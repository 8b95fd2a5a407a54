"""The pictures of a pretraining run: a grid of samples, and the loss curve."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffclean.families.micro_model import MicroUNet, PixelDecoder
from diffclean.families.micro_view import cell_sides, coarse_look, encoder_of, view_told
from diffclean.pretraining.corruptions import Corruptions

if TYPE_CHECKING:
    from diffclean.pretraining.config import PretrainConfig

log = logging.getLogger(__name__)

_SAMPLE_STEPS = 8
_SAMPLE_STRENGTHS = (0.1, 0.3, 0.6, 1.0)


@torch.no_grad()
def draw_grid(model: MicroUNet, scheduler: Any, images: Tensor, config: PretrainConfig, path: Path) -> None:
    """Save a grid with a column for each image: the source, the corrupted source, then variations of rising strength.

    Args:
        model: the averaged weights.
        scheduler: a diffusers scheduler, which is set to eight steps.
        images: (B, S, S, 3) uint8, held-out images.
        config: the configuration of the run.
        path: the PNG file to write.
    """
    device = next(model.parameters()).device
    corrupted = torch.from_numpy(Corruptions().apply(images.numpy(), np.random.default_rng(0)))
    rows = [images.numpy(), corrupted.numpy()]
    encoder = encoder_of(model)
    for strength in _SAMPLE_STRENGTHS:
        generator = torch.Generator().manual_seed(0)
        sample = torch.randn(len(images), 3, config.size, config.size, generator=generator).to(device)
        noise = torch.randn(len(images), 3, config.size // 2, config.size // 2, generator=generator).to(device)
        condition = _told(encoder, corrupted.to(device), noise, strength, config)
        scheduler.set_timesteps(_SAMPLE_STEPS)
        for timestep in scheduler.timesteps:
            times = torch.full((len(images),), float(timestep), device=device)
            predicted = model(sample, times, **condition)
            sample = scheduler.step(predicted, timestep, sample).prev_sample
        rows.append(PixelDecoder()(sample)[0].cpu().numpy())
    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    Image.fromarray(grid).save(path)


def _told(
    encoder: torch.nn.Module, pixels: Tensor, noise: Tensor, strength: float, config: PretrainConfig
) -> dict[str, Tensor]:
    """The inputs by which the network knows a batch at a strength, see `micro_view`."""
    ones = torch.ones(len(pixels), device=pixels.device)
    if not config.coarse_views:
        return view_told(encoder, pixels, noise, strength * ones, None)
    factor, level = coarse_look(strength)
    own = torch.full((len(pixels), 2), float(config.size))
    cell = cell_sides(torch.full((len(pixels),), float(factor)), own, config.size)
    return view_told(encoder, pixels, noise, level * ones, cell)


def draw_loss(out: Path) -> None:
    """Draw `log.jsonl` as `loss.png`, where matplotlib is installed."""
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        if len(entries) == 1:  # once a run
            log.info("matplotlib is not installed, so loss.png is not drawn: pip install 'diffclean[plot]'")
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in ("loss", "validation_loss"):
        axes.plot([entry["step"] for entry in entries], [entry[name] for entry in entries], label=name)
    axes.set_xlabel("step")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(out / "loss.png", dpi=120)
