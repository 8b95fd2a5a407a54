"""One step of training, and the state that a run carries from step to step.

No random state is carried: the order, the variation, the augmentation and the network's own noise are derived from the
seed, the epoch, the step and the name of the image. A run that was stopped can therefore continue in the middle of an
epoch, and ends with exactly the same weights.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from diffclean.classifiers.networks import unit_floats
from diffclean.datasets.bits import Bits, Purpose, ids_of, random_bits
from diffclean.datasets.samples import Samples
from diffclean.errors import UsageError
from diffclean.training.augment import crop_and_flip, flipped_in_turn, turn_and_zoom, unflipped
from diffclean.training.distributed import World
from diffclean.training.loop_config import LoopConfig
from diffclean.training.muon import MuonAndAdamW, set_rate
from diffclean.training.objective import Batch, Objective
from diffclean.training.optimizers import WeightAverage, optimizer_for, rate_share
from diffclean.training.precision import autocast


class Trainer:
    """A network that is trained, with its optimiser.

    Args:
        model: the network on the device of `world`, which is trained in place.
        samples: the data set.
        objective: the loss.
        config: the settings, see `LoopConfig`.
        precision: as for `autocast`.
        world: the processes that train together.

    Raises:
        UsageError: the processes cannot share the batch.
        DiffcleanError: there are too few images to hold some out.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples,
        objective: Objective,
        config: LoopConfig,
        precision: str,
        world: World,
    ) -> None:
        self.model, self.samples, self.objective, self.config = model, samples, objective, config
        self.precision, self.world = precision, world
        self.train_images, self.held_out = samples.split(config.validation_share)
        self.batch = shared_batch(config.batch_size, len(self.train_images), world.size)
        self.steps = len(self.train_images) // self.batch  # in each epoch, other images are left over
        network = world.wrapped(model)
        self.network: Any = torch.compile(network) if config.compile else network
        self.all_steps = config.epochs * self.steps
        self.peak_rate = config.peak_rate(self.all_steps)
        self.optimizer = optimizer_for(model, config, self.all_steps)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._id = ids_of([str(world.rank)])

    @property
    def result(self) -> nn.Module:
        """The network to measure and to keep."""
        return self.model if self.average is None else self.average.model

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def batches(self, epoch: int, first: int) -> list[tuple[Tensor, Tensor]]:
        """This process's batches of an epoch from step `first` on: images, and the variation of each."""
        bits = random_bits(self.samples.ids[self.train_images.numpy()], self.config.seed, epoch, Purpose.ORDER)
        order = self.train_images[torch.from_numpy(np.argsort(bits))][: self.steps * self.batch]
        chosen = [self.world.part(images) for images in order.split(self.batch)][first:]
        return [(images, self.samples.shown(images, self.config.seed, epoch)) for images in chosen]

    def train_step(self, epoch: int, step: int, images: Tensor, views: Tensor, pixels: Tensor) -> Tensor:
        """Do one step of the optimiser.

        Args:
            epoch: the epoch, from 0.
            step: the step in the epoch, from 0.
            images: (B,) the numbers of the images.
            views: (B,) the numbers of their variations.
            pixels: (B, 3, H, W) uint8, the pixels of these.

        Returns:
            (3,) float64 on the device: the sum of the losses, the right answers, the images.
        """
        config, device = self.config, self.world.device
        steps_done = epoch * self.steps + step
        set_rate(self.optimizer, rate_share(steps_done / self.all_steps, config) * self.peak_rate)
        pixels = pixels.to(device)
        if config.augment:
            largest_shift = int(config.shift * min(pixels.shape[2:]))
            pixels = crop_and_flip(pixels, self._augmentation(epoch, images), largest_shift)
        if config.turn or config.zoom:
            bits = random_bits(self.samples.ids[images.numpy()], config.seed, epoch, Purpose.TURN)
            pixels = turn_and_zoom(pixels, bits, config.turn, config.zoom)
        self._seed_network(steps_done)
        labels = self.samples.labels[images].to(device)
        batch = Batch(unit_floats(pixels), labels, views, whole=not config.changes_images)
        with autocast(device, self.precision):
            loss, right = self.objective(self.network(batch.images), batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if isinstance(self.optimizer, MuonAndAdamW):
            self.optimizer.take_gradients()
        self.scaler.step(cast(torch.optim.Optimizer, self.optimizer))
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, steps_done)
        count = torch.tensor(float(len(images)), dtype=torch.float64, device=device)
        return torch.stack([loss.detach().double() * count, right.sum().double(), count])

    def _augmentation(self, epoch: int, images: Tensor) -> Bits:
        """(B,) random bits for the crops and flips of an epoch."""
        ids, seed = self.samples.ids[images.numpy()], self.config.seed
        bits = random_bits(ids, seed, epoch, Purpose.AUGMENT)
        if self.config.flip == "random":
            return bits
        if self.config.flip == "none":
            return unflipped(bits)
        return flipped_in_turn(bits, random_bits(ids, seed, Purpose.FLIP), epoch)

    def is_finite(self) -> bool:
        """Whether no weight has become infinite or NaN."""
        return all(bool(tensor.isfinite().all()) for tensor in self.model.state_dict().values())

    def state_dict(self) -> dict[str, Any]:
        """Everything that another process needs to continue."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts if self.average is None else parts | {"average": self.average.model}

    def _seed_network(self, step: int) -> None:
        """Seed the network's own noise, such as dropout; torch.manual_seed would take a tenth of a millisecond."""
        seed = int(random_bits(self._id, self.config.seed, step, Purpose.NETWORK)[0] >> np.uint64(1))
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)


def shared_batch(wanted: int, images: int, processes: int) -> int:
    """The batch size that is used: the one that is wanted, or as many images as there are.

    Raises:
        UsageError: the processes cannot share the batch equally, or each would get less than two images (batch
            normalisation).
    """
    if wanted % processes or wanted < 2 * processes:
        raise UsageError(
            f"A batch of {wanted} images cannot be shared by {processes} processes.",
            f"Give a multiple of {processes}, at least twice that: `batch_size` {max(128 // processes, 2) * processes}",
        )
    batch = min(wanted, images // processes * processes)
    if batch < 2 * processes:
        raise UsageError(f"{images} training images are too few for {processes} process(es).", "Give more images.")
    return batch
