"""The features that a teacher computes just before its answer."""

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

    If the layers of the network cannot be read (ONNX), or if its last layer is not linear, the centred logits are
    returned instead: they are a linear map of these features, with fewer dimensions.

    Args:
        teacher: the classifier that is asked.
        samples: M images.
        device: the torch device on which the teacher runs.

    Returns:
        (M, D) float32 features, and a phrase for messages that says what they are.
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
    """The linear layer that gives the logits, or None if it cannot be identified."""
    if not isinstance(teacher.network, nn.Module):
        return None
    layers = [one for one in teacher.network.modules() if isinstance(one, nn.Linear)]
    return layers[-1] if layers and layers[-1].out_features == len(teacher.class_to_idx) else None
