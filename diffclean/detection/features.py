"""What a teacher sees in an image just before it answers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffclean.classifiers.loading import LoadedClassifier
from diffclean.datasets.samples import Samples
from diffclean.detection.variation_drop import centred_logits

Features = NDArray[np.float32]


def penultimate(teacher: LoadedClassifier, samples: Samples, device: torch.device) -> tuple[Features, str]:
    """The input of the teacher's last linear layer.

    A network that cannot be looked into (ONNX), or whose answer is no linear layer's, gives its centred logits
    instead: they are a linear image of these features, with fewer dimensions.

    Args:
        teacher: is asked.
        samples: M pictures.
        device: where the teacher runs.

    Returns:
        (M, D) float32, and what they are, to be told.
    """
    layer = _last_linear(teacher)
    caught: list[Tensor] = []
    hook = None
    if layer is not None:
        hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].detach().float().cpu()))
    try:
        logits = centred_logits(teacher, samples, device)
    finally:
        if hook is not None:
            hook.remove()
    if caught and all(one.ndim == 2 for one in caught) and sum(len(one) for one in caught) == len(logits):
        return torch.cat(caught).numpy(), "the teacher's penultimate layer"
    return logits.astype(np.float32), "the teacher's centred logits"


def _last_linear(teacher: LoadedClassifier) -> nn.Linear | None:
    """The layer that gives the logits; None where it cannot be told."""
    if not isinstance(teacher.network, nn.Module):
        return None
    layers = [one for one in teacher.network.modules() if isinstance(one, nn.Linear)]
    return layers[-1] if layers and layers[-1].out_features == len(teacher.class_to_idx) else None
