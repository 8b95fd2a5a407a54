"""What a student is trained on: the teacher's softened answers, and the labels.

L = alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) CE(softmax(s), y)

with the logits t of the teacher and s of the student, the temperature T and the label y: Hinton, Vinyals and Dean 2015,
"Distilling the knowledge in a neural network", arXiv 1503.02531, section 2. T^2 keeps the size of the first term's
gradients while T changes.

The code that was released with Struppek et al. 2023, arXiv 2310.06372 (losses/kl_loss.py in
LukasStruppek/Robust_Training_on_Poisoned_Samples) differs in one place: it overwrites s by log_softmax(s / T) and hands
that to the cross-entropy, so that the label's term is CE(softmax(s / T), y): the student at temperature T, not 1. Near
the start its gradient is T times smaller, so at T = 10 labels count for a fraction of what alpha says. T^2, alpha, the
direction of the divergence and the mean over the batch are the same. `hard_temperature=temperature` reproduces it.
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
    """The loss above, a scalar: the mean over the batch.

    Args:
        student: (B, C) logits s.
        targets: (B, C) float32, `soften(t, temperature)` of the teacher's logits t, or a mean of several such.
        labels: (B,) int64; not looked at where alpha is 1.
        temperature: T, above 0.
        alpha: in [0, 1].
        hard_temperature: of the student in the label's term.
    """
    student = student.float()
    log_soft = F.log_softmax(student / temperature, dim=1)
    soft_loss = F.kl_div(log_soft, targets, reduction="batchmean") * temperature**2
    if alpha == 1:
        return soft_loss
    return alpha * soft_loss + (1 - alpha) * F.cross_entropy(student / hard_temperature, labels)
