import copy

import pytest
import torch
from torch import nn

from diffclean.training.loop_config import LoopConfig
from diffclean.training.optimizers import WeightAverage, optimizer_for, rate_share


def rates(config: LoopConfig) -> list[float]:
    return [rate_share(step / 100, config) for step in range(100)]


def test_cosine_rises_and_falls() -> None:
    found = rates(LoopConfig())
    assert found[20] == 1
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert found[60] == pytest.approx(0.5)
    assert 0 < found[-1] < 0.001
    assert found[0] > 0, "a step without a rate would be wasted"


def test_multi_step_falls_to_a_tenth_at_each_milestone() -> None:
    found = rates(LoopConfig(schedule="multi-step", milestones=(0.3, 0.8)))
    assert found[:30] == [1] * 30
    assert found[30:80] == pytest.approx([0.1] * 50)
    assert found[80:] == pytest.approx([0.01] * 20)
    warm = rates(LoopConfig(schedule="multi-step", milestones=(0.3, 0.8), warmup=0.1))
    assert warm[5] == pytest.approx(0.5)
    assert warm[10:] == found[10:]


def test_constant() -> None:
    assert set(rates(LoopConfig(schedule="constant"))) == {1.0}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimisers_take_their_own_defaults(name: str) -> None:
    model = nn.Linear(2, 2)
    own = LoopConfig(optimizer=name)
    optimizer = optimizer_for(model, own)
    assert type(optimizer).__name__.lower() == name
    assert optimizer.defaults["lr"] == own.peak_rate() == (0.1 if name == "sgd" else 1e-3)
    asked = LoopConfig(optimizer=name, learning_rate=0.3, weight_decay=0.0)
    assert optimizer_for(model, asked).defaults["lr"] == 0.3
    assert optimizer_for(model, asked).defaults["weight_decay"] == 0


def test_muon_trains_kernels_and_adamw_the_rest() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    own = LoopConfig(optimizer="muon")
    kernels, rest = optimizer_for(model, own).param_groups
    assert (kernels["lr"], kernels["weight_decay"]) == (own.peak_rate(), own.decay()) == (0.24, 0.12)
    assert [len(p) for p in kernels["params"]] == [4]
    assert rest["lr"] < own.peak_rate()
    assert [tuple(p.shape) for p in rest["params"]] == [(4,), (2, 4), (2,)]


def test_the_defaults_of_muon_shrink_in_long_runs_and_what_is_given_stays() -> None:
    own = LoopConfig(optimizer="muon")
    assert own.peak_rate(50) == own.peak_rate(200) == 0.24
    assert own.peak_rate(800) == pytest.approx(0.12)
    assert own.decay(800) == pytest.approx(0.06)
    asked = LoopConfig(optimizer="muon", learning_rate=0.2, weight_decay=0.1)
    assert (asked.peak_rate(800), asked.decay(800)) == (0.2, 0.1)
    assert LoopConfig().peak_rate(800) == LoopConfig().peak_rate()


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = WeightAverage(model, 0.9)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(120):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 3))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, now in model.state_dict().items():
            if now.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * now
            else:
                expected[name] = now.clone()
    found = average.model.state_dict()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-4), name
    assert int(found["1.num_batches_tracked"]) == 120
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_average_does_not_touch_the_model() -> None:
    model = nn.Linear(2, 2)
    before = copy.deepcopy(model.state_dict())
    average = WeightAverage(model, 0.5)
    average.update(nn.Linear(2, 2), 3)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_linear_falls_evenly() -> None:
    found = rates(LoopConfig(schedule="linear"))
    assert found == pytest.approx([1 - step / 100 for step in range(100)])
    warm = rates(LoopConfig(schedule="linear", warmup=0.5))
    assert warm[50] == 1
    assert warm[75] == pytest.approx(0.5)
