"""Floating-point operations of networks, counted without content; a multiplication and an addition count as two."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffclean.export.onnx import example_inputs
from diffclean.families.base import Component


def of_module(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Operations of one call; the module loses its weights."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.to("meta").float()(*(value.to("meta") for value in inputs))
    return int(counter.get_total_flops())


def of_component(component: Component) -> int:
    """Operations of one call with a batch of one; the component's module loses its weights."""
    return of_module(component.module, list(example_inputs(component.inputs, 1).values()))
