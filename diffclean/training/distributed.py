"""Training with several processes, as `torchrun` starts them. With one process, all of this has no effect.

This is plain torch.distributed, used for sums, flags and averaged gradients.
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
    """This process among all processes that train together.

    Attributes:
        device: the device that this process computes on.
        rank: the number of this process; process 0 writes files and logs.
        size: the number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def part(self, chosen: Tensor) -> Tensor:
        """This process's share of a global batch. Shares differ by one image at most and do not overlap."""
        return chosen.tensor_split(self.size)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, which is the same in each. All processes must call this."""
        total = values.clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All processes must call this."""
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
        """Give every process the running means of the first one, so that all of them measure the same network."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the processes that `torchrun` started together with this one.

    Args:
        device: as for `pick_device`; with several processes each takes the GPU of its own number.

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
                f"There are {torch.cuda.device_count()} GPUs here, but this is process {local + 1} on this machine.",
                "Start one process for each GPU: torchrun --nproc-per-node NUMBER_OF_GPUS ...",
            )
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield World(where, distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


def processes_here() -> int:
    """The number of processes that share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
