"""`pretrain --dry-run`: the duration of a training on this machine, from a few measured steps."""

from __future__ import annotations

import time
from contextlib import closing

import numpy as np
import torch

from diffclean.pretraining.batches import default_workers, prepared
from diffclean.pretraining.config import PretrainConfig
from diffclean.pretraining.pretrain import Pretrainer

_MEASURED_STEPS = 2


def seconds_a_step(config: PretrainConfig) -> float:
    """Train for some steps on pictures of noise, in the same way as `pretrain`, and discard the network.

    The first step does not count; on a GPU the network is compiled in it, which takes a minute or more.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * config.batch, config.size, config.size, 3)).astype(np.uint8)
    trainer = Pretrainer(config, device)
    with closing(prepared(images, config, 0, default_workers(device), pin=device.type == "cuda")) as source:
        trainer.train_step(next(source))
        began = time.monotonic()
        for _ in range(_MEASURED_STEPS):
            trainer.train_step(next(source))
        return (time.monotonic() - began) / _MEASURED_STEPS
