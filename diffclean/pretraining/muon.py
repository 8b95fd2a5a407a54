"""The optimiser of pretraining."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffclean.pretraining.config import PretrainConfig


class MuonAndAdamW:
    """Muon for every weight that is a matrix or a convolution, and AdamW for everything else.

    Muon orthogonalises the update of a matrix (Jordan et al. 2024). Scaled to AdamW's root mean square, it takes the
    same learning rate (Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982). A convolution counts as the
    matrix of its kernels, one in each row.
    """

    def __init__(self, model: nn.Module, config: PretrainConfig) -> None:
        named = list(model.named_parameters())
        self._kernels = [p for name, p in named if p.ndim in (2, 4) and name.endswith("weight")]
        chosen = {id(p) for p in self._kernels}
        rest = [p for _, p in named if id(p) not in chosen]
        # The matrices share the memory of their kernels, so a step of one is a step of the other.
        self._matrices = [nn.Parameter(p.detach().view(len(p), -1)) for p in self._kernels]
        rate, decay = config.learning_rate, config.weight_decay
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(self._matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        ]

    def step(self, learning_rate: float) -> None:
        """Do one step with the gradients of the model."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.reshape(matrix.shape)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of both optimisers."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Restore the states of both optimisers."""
        for part, saved in zip(self._parts, state, strict=True):
            part.load_state_dict(saved)
