"""Training by several processes, as `torchrun` starts them. Without it there is one, and all of this is for nothing.

Plain torch.distributed: what is asked of it here is a sum, a flag and averaged gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from diffclean.classifiers.networks import pick_device
from diffclean.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among all that train together.

    Attributes:
        device: where this one computes.
        rank: its number; 0 is the one that writes and talks.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def part(self, chosen: Tensor) -> Tensor:
        """This process's share of a global batch; the shares differ by one image at most and overlap nowhere."""
        return chosen.tensor_split(self.size)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes; the same in each. All must call it."""
        total = values.clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether it is set in any process. All must call it."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def wrapped(self, model: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over all processes."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(
            model, device_ids=None if self.device.type == "cpu" else [self.device]
        )

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the first one's running means, so that all measure the same network."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the processes that `torchrun` started with this one.

    Args:
        device: as in `pick_device`; of several processes each takes the GPU of its own number.

    Raises:
        UsageError: the device cannot be used.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(pick_device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = pick_device(device)
    if where.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"There are {torch.cuda.device_count()} GPUs here, and this is process {local + 1} on this machine.",
                "Start one process a GPU: torchrun --nproc-per-node NUMBER_OF_GPUS ...",
            )
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield World(where, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def processes_here() -> int:
    """How many processes share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
