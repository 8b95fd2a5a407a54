"""Muon for the kernels of a network, and AdamW for everything else.

Muon makes all singular values of an update alike, so that every direction of a layer learns at one pace (K. Jordan et
al. 2024, kellerjordan.github.io/posts/muon). It takes about half the epochs of SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MuonSettings:
    """The settings of both optimisers.

    Attributes:
        learning_rate: Muon's rate at its peak.
        weight_decay: Muon's weight decay; AdamW has none.
        momentum: Muon's momentum.
        steps: the number of Newton-Schulz steps. More bring the singular values closer to one another.
        adjustment: "original" or "match_rms_adamw", see `torch.optim.Muon`. With the second, an update has the size of
            one of AdamW (Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982).
        rest_share: AdamW's rate, as a share of Muon's.
        last_by_muon: whether the last layer is trained by Muon as well.
    """

    learning_rate: float
    weight_decay: float
    momentum: float = 0.95
    steps: int = 5
    adjustment: str = "match_rms_adamw"
    rest_share: float = 1.0
    last_by_muon: bool = True


class MuonAndAdamW:
    """Two optimisers that behave like one. A convolution counts as the matrix of its kernels, one in each row.

    Args:
        model: the network; weights that need no gradient are left as they are.
        settings: see `MuonSettings`.
    """

    def __init__(self, model: nn.Module, settings: MuonSettings) -> None:
        learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        kernels = [p for name, p in learned if p.ndim in (2, 4) and name.endswith("weight")]
        self._kernels = kernels if settings.last_by_muon else kernels[:-1]
        chosen = {id(p) for p in self._kernels}
        rest = [p for _, p in learned if id(p) not in chosen]
        # The matrices share the memory of their kernels, so a step of one is a step of the other.
        self._matrices = [nn.Parameter(_rows(p.detach(), p)) for p in self._kernels]
        muon = torch.optim.Muon(
            self._matrices,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            ns_steps=settings.steps,
            adjust_lr_fn=settings.adjustment,
        )
        rate = settings.learning_rate * settings.rest_share
        adamw = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self._parts: list[torch.optim.Optimizer] = [muon, adamw]
        for group in adamw.param_groups:
            group["share"] = settings.rest_share

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both optimisers; `share` is the rate of a group as a share of Muon's."""
        return [group for part in self._parts for group in part.param_groups]

    def take_gradients(self) -> None:
        """Move the gradients of the kernels to where a gradient scaler finds them; `step` does it if need be."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            if kernel.grad is not None:
                matrix.grad, kernel.grad = _rows(kernel.grad, kernel), None

    def step(self) -> None:
        """Do one step with the gradients of the model."""
        self.take_gradients()
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the model."""
        for part in self._parts:
            part.zero_grad(set_to_none)
        for kernel in self._kernels:
            kernel.grad = None

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of both optimisers."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore the states of both optimisers."""
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)


def set_rate(optimizer: torch.optim.Optimizer | MuonAndAdamW, rate: float) -> None:
    """Set the learning rate of all groups, with regard to the `share` of those that have one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)


def _rows(values: Tensor, kernels: Tensor) -> Tensor:
    """(N, ...) -> (N, M), in the order in which `kernels` lie in memory, so that these are not copied."""
    channels_last = kernels.ndim == 4 and not kernels.is_contiguous()
    return (values.permute(0, 2, 3, 1) if channels_last else values).flatten(1)
