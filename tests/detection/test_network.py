"""Small networks: many at the same time, and the faster form for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from threading import Event, Lock, Semaphore

import numpy as np
import pytest
import torch
from bars import draw_bars
from torch import Tensor
from torch.nn import functional as F

from diffclean.detection.network import SmallNet, Workbench, fit, together
from diffclean.errors import Interrupted

CORES = 2


@pytest.fixture
def bench() -> Workbench:
    return replace(draw_bars().bench(), cores=CORES, turns=Semaphore(CORES))


def train(bench: Workbench, seed: int, watch: Callable[[int], None] | None = None) -> float:
    def choose(_: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(rng.integers(0, len(bench.images), 8))

    net = bench.network(2, seed, width=4)
    fit(bench, net, 5, choose, lambda logits, _: F.cross_entropy(logits, torch.zeros(8, dtype=torch.long)), seed, watch)
    return float(net.head.weight.detach().sum())


def test_tasks_within_tasks_give_the_results_of_one_after_the_other(bench: Workbench) -> None:
    def outer(number: int) -> list[float]:
        return together(bench, [partial(train, bench, 10 * number + inner) for inner in range(3)])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = together(bench, [partial(outer, number) for number in range(3)])
        assert found == [[train(bench, 10 * number + inner) for inner in range(3)] for number in range(3)]
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_no_more_networks_are_trained_at_a_time_than_there_are_cores(bench: Workbench) -> None:
    lock, running, most = Lock(), set[int](), [0]

    def watch(seed: int, step: int) -> None:
        with lock:
            running.add(seed)
            most[0] = max(most[0], len(running))
            if step == 5:
                running.remove(seed)

    together(bench, [partial(train, bench, seed, partial(watch, seed)) for seed in range(6)])
    assert 1 <= most[0] <= CORES


def test_a_stop_and_an_error_reach_the_caller(bench: Workbench) -> None:
    stopped = replace(bench, stop=Event())
    assert stopped.stop is not None
    stopped.stop.set()
    with pytest.raises(Interrupted):
        together(stopped, [partial(train, stopped, seed) for seed in range(3)])
    with pytest.raises(ZeroDivisionError):
        together(bench, [lambda: 1 / 0, lambda: train(bench, 1)])


def test_the_form_for_evaluation_gives_the_same_answers(bench: Workbench) -> None:
    net = bench.network(3, seed=1)
    images = bench.images[:32].float() / 255
    net.train()
    for _ in range(3):
        net(images)  # The running statistics of the batch norms leave their first values.
    net.eval()
    with torch.no_grad():
        assert torch.allclose(net.fused()(images), net(images), atol=1e-4)
        assert not net.fused().training


@pytest.mark.parametrize("side", [16, 32, 48, 96, 128, 224])
def test_every_pixel_is_seen_whatever_the_size(side: int) -> None:
    torch.manual_seed(0)
    net = SmallNet(3, side, ((0.5,) * 3, (0.25,) * 3)).eval()
    images = torch.rand(4, 3, side, side, requires_grad=True)
    answers = net(images)
    answers.square().sum().backward()
    assert images.grad is not None
    assert (images.grad.abs().sum((0, 1)) > 0).all()
    torch.testing.assert_close(net.fused()(images.detach()), answers.detach(), rtol=1e-3, atol=1e-4)


def test_another_search_has_other_weights(bench: Workbench) -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([each.flatten() for each in replace(bench, seed=seed).network(4, 7).parameters()])

    assert torch.equal(weights(2), weights(2))
    assert not torch.equal(weights(1), weights(2))
