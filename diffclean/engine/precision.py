"""The precisions in which graphs compute, and a wrapper that makes a torch module compute in one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffclean.errors import UsageError


class InPrecision(nn.Module):
    """A module that computes in another precision, with fp32 inputs and outputs.

    Inputs of one number for each image (timesteps, noise levels) stay in fp32, because half precision cannot tell 999
    from 999.4.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Like `forward` of the module."""
        cast = [x.to(self.dtype) if x.is_floating_point() and x.ndim > 1 else x for x in inputs]
        outputs = self.module(*cast)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(x.float() if x.is_floating_point() else x for x in outputs)


def torch_dtype(precision: str) -> torch.dtype:
    """The torch dtype of fp32, fp16 or bf16.

    Raises:
        UsageError: the name is another one.
    """
    names = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision not in names:
        raise UsageError(f"There is no precision {precision!r}.", f"Known: {', '.join(names)}.")
    return names[precision]
