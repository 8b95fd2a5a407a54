"""Floating-point operations of networks. A multiplication and an addition count as two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffclean.export.onnx import example_inputs
from diffclean.families.base import Component


def of_module(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Operations of one call, counted on tensors without content; the module loses its weights."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.to("meta").float()(*(value.to("meta") for value in inputs))
    return int(counter.get_total_flops())


def of_component(component: Component) -> int:
    """Operations of one call with a batch of one; the component's module loses its weights."""
    return of_module(component.module, list(example_inputs(component.inputs, 1).values()))


@contextmanager
def of_layers() -> Iterator[Callable[[], int]]:
    """Count what all convolutions and linear layers compute within the block, in all threads.

    The gradients of a call count as soon as it is made: that of the weights if they learn, and that of the input if
    something before it learns. torch's own counter would slow a training down to half.

    Yields:
        A function that tells the number up to now.
    """
    counts: list[int] = []
    lock = Lock()

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(module, nn.Conv2d | nn.Linear) or isinstance(output.numel(), torch.SymInt):
            return  # the second is a graph that is traced, which computes nothing
        once = 2 * output.numel() * module.weight[0].numel()
        gradients = 0
        if output.requires_grad:
            gradients = module.weight.requires_grad + inputs[0].requires_grad
        with lock:
            counts.append(once * (1 + gradients))

    hook = nn.modules.module.register_module_forward_hook(count)
    try:
        yield lambda: sum(counts)
    finally:
        hook.remove()
