"""Projected gradient descent: the change of an image, within a bound, for which a classifier is most wrong.

Madry, Makelov, Schmidt, Tsipras, Vladu: "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
arXiv 1706.06083. There is no random start here, so the image and the model determine the result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffclean.attacks.base import Pixels
from diffclean.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from diffclean.classifiers.checkpoints import Checkpoint

EPSILON = {"l2": 300, "linf": 8}
"""The default bound in grey levels by norm, for an image of 32x32 px."""


def perturbed(image: Pixels, label: str, parameters: Mapping[str, Any]) -> Pixels:
    """Increase the cross-entropy of the image's own class.

    Images are perturbed one at a time and on the CPU, because the last bits would depend on the batch or the device.

    Args:
        image: (H, W, 3) uint8; it is resized for the model inside the gradient, so the change is at the image's own
            size.
        label: its class, which the model must know.
        parameters: `model`, `model_sha256`, `norm`, `epsilon`, `step_size` and `steps` of `LabelConsistent`.

    Returns:
        (H, W, 3) uint8, within epsilon of the image, apart from rounding.

    Raises:
        UsageError: the model file is gone or has changed, or the model does not know the class.
    """
    import torch

    checkpoint = loaded(parameters["model"], parameters["model_sha256"])
    if label not in checkpoint.class_to_idx:
        raise UsageError(
            f"The model {parameters['model']} does not know the class {label!r}.",
            f"It knows: {', '.join(checkpoint.class_to_idx)}. Train it on the same classes.",
        )
    grow = math.sqrt(image.shape[0] * image.shape[1] / 32**2) if parameters["norm"] == "l2" else 1.0
    epsilon, step = parameters["epsilon"] * grow, parameters["step_size"] * grow
    clean = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    changed = clean
    for _ in range(parameters["steps"]):
        gradient = _gradient(checkpoint, changed, checkpoint.class_to_idx[label])
        if parameters["norm"] == "linf":
            change = (changed + step * gradient.sign() - clean).clamp(-epsilon, epsilon)
        else:
            change = changed + step * gradient / gradient.norm().clamp(min=1e-12) - clean
            change = change * (epsilon / change.norm().clamp(min=1e-12)).clamp(max=1)
        changed = (clean + change).clamp(0, 255)
    pixels: Pixels = changed[0].round().to(torch.uint8).numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(pixels)


def _gradient(checkpoint: Checkpoint, images: Tensor, target: int) -> Tensor:
    """The gradient of the cross-entropy with respect to (1, 3, H, W) in 0..255."""
    import torch
    from torch.nn.functional import cross_entropy, interpolate

    images = images.detach().requires_grad_()
    seen = images / 255
    if seen.shape[2:] != checkpoint.size:
        seen = interpolate(seen, checkpoint.size, mode="bicubic", antialias=True)
    loss = cross_entropy(checkpoint.model(seen), torch.tensor([target]))
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient


@lru_cache(maxsize=2)
def loaded(path: str, sha256: str) -> Checkpoint:
    """The classifier in a file, on the CPU.

    Raises:
        UsageError: the file is missing, or its content does not have that hash.
        DiffcleanError: it is not a classifier.
    """
    from diffclean.classifiers import checkpoints

    try:
        found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"The model {path} cannot be read: {error.strerror}.",
            "Put it back, or replay the trigger on test images, which does not need it.",
        ) from error
    if found != sha256:
        raise UsageError(f"The model {path} has changed: its SHA-256 is {found}, expected {sha256}.")
    checkpoint = checkpoints.load(Path(path))
    checkpoint.model.requires_grad_(False)
    return checkpoint
