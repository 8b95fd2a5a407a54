"""The loss of distillation, from the teacher's softened answers and the labels.

L = alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) CE(softmax(s), y)

where t are the logits of the teacher, s those of the student, T is the temperature and y the label: Hinton, Vinyals and
Dean 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531, section 2. The factor T^2 keeps the
magnitude of the first term's gradients when T changes.

The code that was released with Struppek et al. 2023, arXiv 2310.06372 (losses/kl_loss.py in
LukasStruppek/Robust_Training_on_Poisoned_Samples) differs in one place. It overwrites s with log_softmax(s / T) and
passes that to the cross-entropy, so the label term is CE(softmax(s / T), y), with the student at temperature T in place
of 1. Near the start of the training its gradient is T times smaller, so at T = 10 labels count for a fraction of what
alpha says. T^2, alpha, the direction of the divergence and the mean over the batch are the same.
`hard_temperature=temperature` reproduces that code.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def soften(logits: Tensor, temperature: float) -> Tensor:
    """(B, C) logits -> (B, C) float32 probabilities, softmax(logits / T)."""
    return F.softmax(logits.float() / temperature, dim=1)


def distillation_loss(
    student: Tensor,
    targets: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    hard_temperature: float = 1.0,
) -> Tensor:
    """The loss as a scalar, the mean over the batch. See the description of the module.

    Args:
        student: (B, C) logits s.
        targets: (B, C) float32, `soften(t, temperature)` of the teacher's logits t, or a mean of several such.
        labels: (B,) int64; not used if alpha is 1.
        temperature: T, above 0.
        alpha: in [0, 1].
        hard_temperature: the temperature of the student in the label term.
    """
    student = student.float()
    log_soft = F.log_softmax(student / temperature, dim=1)
    soft_loss = F.kl_div(log_soft, targets, reduction="batchmean") * temperature**2
    if alpha == 1:
        return soft_loss
    return alpha * soft_loss + (1 - alpha) * F.cross_entropy(student / hard_temperature, labels)
