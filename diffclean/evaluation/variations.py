"""Trigger survival and label preservation of variations, as plain functions on predictions, and the predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffclean.evaluation.metrics import Rate, attack_success_rate, clean_accuracy

if TYPE_CHECKING:
    from diffclean.classifiers.checkpoints import Checkpoint


@dataclass(frozen=True)
class TriggerSurvival:
    """How much of a trigger is left in variations.

    Attributes:
        survival: the difference of the values of the two rates, in [-1, 1].
        triggered: the share of variations of triggered images of other classes that the teacher predicts as the target
            class.
        untriggered: the same share for images without the trigger.
    """

    survival: float
    triggered: Rate
    untriggered: Rate


@dataclass(frozen=True)
class LabelPreservation:
    """How much of the content of images is left in variations.

    Attributes:
        preservation: the ratio of the values of the two rates; NaN if the classifier is never right on the originals.
        variations: the share of variations that the classifier predicts as the true class.
        originals: the same share for the originals.
    """

    preservation: float
    variations: Rate
    originals: Rate


def trigger_survival(
    of_triggered: ArrayLike, of_untriggered: ArrayLike, labels: ArrayLike, target: ArrayLike
) -> TriggerSurvival:
    """How much of a trigger is left in variations, according to the teacher that learned it.

    Some variations are predicted as the target class because they are blurred or wrong, with or without a trigger. That
    rate is measured on variations of the same images without the trigger, and subtracted.

    Args:
        of_triggered: (N,) the teacher's predictions on variations of triggered images.
        of_untriggered: (N,) the same on variations of the same images without the trigger.
        labels: (N,) true classes. Images of the target class are left out.
        target: the target class, or (N,) one for each image.
    """
    return survival(
        attack_success_rate(of_triggered, labels, target), attack_success_rate(of_untriggered, labels, target)
    )


def survival(triggered: Rate, untriggered: Rate) -> TriggerSurvival:
    """The two rates and their difference."""
    return TriggerSurvival(triggered.value - untriggered.value, triggered, untriggered)


def label_preservation(of_variations: ArrayLike, of_originals: ArrayLike, labels: ArrayLike) -> LabelPreservation:
    """How much of the content of images is left in variations, according to a clean classifier.

    Args:
        of_variations: (N,) the clean classifier's predictions on variations.
        of_originals: (N,) the same on the originals.
        labels: (N,) true classes.
    """
    varied, original = clean_accuracy(of_variations, labels), clean_accuracy(of_originals, labels)
    ratio = varied.value / original.value if original.hits else float("nan")
    return LabelPreservation(ratio, varied, original)


def predict_arrays(checkpoint: Checkpoint, images: NDArray[np.uint8], batch_size: int = 512) -> NDArray[np.int64]:
    """The class that a classifier predicts for each image.

    Args:
        checkpoint: a classifier from `classifiers.checkpoints.load`, which runs on the device of its model.
        images: (N, H, W, 3) uint8 RGB of any size; they are resized to the size it was trained on (bicubic).
        batch_size: the number of images in a forward pass.

    Returns:
        (N,) int64, indices as in `checkpoint.class_to_idx`.
    """
    import torch

    from diffclean.classifiers.loading import check_answers
    from diffclean.classifiers.networks import predict
    from diffclean.datasets.pixels import resized

    if images.shape[1:3] != checkpoint.size:
        images = np.stack([resized(image, checkpoint.size) for image in images])
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    logits = predict(checkpoint.model, tensor, batch_size)
    check_answers(logits, f"The classifier ({checkpoint.arch})")
    classes: NDArray[np.int64] = logits.argmax(1).numpy()
    return classes
