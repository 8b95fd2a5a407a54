from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffclean.training.distill_loss import distillation_loss, soften

Floats = NDArray[np.float64]


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def reference(
    student: Floats, teacher: Floats, labels: NDArray[np.int64], temperature: float, alpha: float, hard: float
) -> float:
    """Written from the formula, in float64."""
    p, q = log_softmax(teacher / temperature), log_softmax(student / temperature)
    soft = (np.exp(p) * (p - q)).sum(1).mean() * temperature**2
    hard_loss = -log_softmax(student / hard)[np.arange(len(labels)), labels].mean()
    return float(alpha * soft + (1 - alpha) * hard_loss)


@settings(max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(2, 12),
    st.floats(0.5, 20),
    st.floats(0, 1),
    st.floats(0, 30),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_loss_is_the_formula(
    count: int, classes: int, temperature: float, alpha: float, spread: float, paper: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    student, teacher = (rng.normal(0, 1 + spread, (count, classes)).astype(np.float32) for _ in range(2))
    labels = rng.integers(0, classes, count)
    hard = temperature if paper else 1.0
    targets = soften(torch.from_numpy(teacher), temperature)
    found = distillation_loss(
        torch.from_numpy(student), targets, torch.from_numpy(labels), temperature, alpha, hard_temperature=hard
    )
    expected = reference(student.astype(np.float64), teacher.astype(np.float64), labels, temperature, alpha, hard)
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_perfect_student_has_only_the_labels_to_learn() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    assert distillation_loss(logits, soften(logits, 3), labels, 3, 1.0).item() == pytest.approx(0, abs=1e-5)
    alone = torch.nn.functional.cross_entropy(logits, labels).item()
    assert distillation_loss(logits, soften(logits, 3), labels, 3, 0.25).item() == pytest.approx(0.75 * alone, rel=1e-5)


def test_alpha_1_reads_no_label() -> None:
    logits = torch.randn(3, 4)
    loss = distillation_loss(logits, soften(torch.randn(3, 4), 2), torch.full((3,), -1), 2, 1.0)
    assert loss.isfinite()


def test_gradients_of_the_soft_term_keep_their_size_over_temperature() -> None:
    """What T^2 is for (Hinton et al., section 2.1): at high T the gradient nears (s - t) / C, whatever T is."""
    teacher = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 0.1
    teacher -= teacher.mean(1, keepdim=True)
    sizes = []
    for temperature in (20.0, 40.0):
        student = torch.zeros(6, 5, requires_grad=True)
        distillation_loss(student, soften(teacher, temperature), torch.zeros(6).long(), temperature, 1.0).backward()
        assert student.grad is not None
        sizes.append(student.grad)
    assert torch.allclose(sizes[0], sizes[1], rtol=0.02, atol=1e-5)
    assert torch.allclose(sizes[1], -teacher / 5 / 6, rtol=0.02, atol=1e-5)
