import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from diffclean.training.muon import MuonAndAdamW, MuonSettings, set_rate

SETTINGS = MuonSettings(0.1, 0.0, adjustment="original", rest_share=0.5, last_by_muon=False)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8, 4))


def learn(net: nn.Module, optimizer: MuonAndAdamW, steps: int = 1) -> float:
    images = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 4
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_a_step_moves_every_direction_of_a_kernel_by_about_the_rate() -> None:
    net = network()
    before = copy.deepcopy(net)
    learn(net, MuonAndAdamW(net, replace(SETTINGS, steps=8)))
    moved = (net[2].weight - before[2].weight).detach().flatten(1)
    sizes = torch.linalg.svdvals(moved)
    assert sizes.min() > 0.06
    assert sizes.max() < 0.13
    for part in (net[5].weight - before[5].weight, net[2].bias - before[2].bias):
        assert part.detach().abs().max() == pytest.approx(0.05, rel=0.01), "AdamW moves by its rate in the first step"


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_it_learns_however_the_kernels_lie_in_memory(memory: torch.memory_format) -> None:
    net = network().to(memory_format=memory)
    optimizer = MuonAndAdamW(net, SETTINGS)
    first = learn(net, optimizer)
    assert learn(net, optimizer, 40) < 0.7 * first


def test_both_memory_formats_learn_alike() -> None:
    one, other = network(), network().to(memory_format=torch.channels_last)
    for net in (one, other):
        learn(net, MuonAndAdamW(net, SETTINGS), 3)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)  # the iteration runs in bfloat16


def test_a_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    net = network()
    optimizer = MuonAndAdamW(net, SETTINGS)
    learn(net, optimizer, 3)
    again = copy.deepcopy(net)
    restored = MuonAndAdamW(again, SETTINGS)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(net, optimizer, 3)
    learn(again, restored, 3)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_weights_that_need_no_gradient_stay() -> None:
    net = network()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    learn(net, MuonAndAdamW(net, SETTINGS), 3)
    assert torch.equal(net[0].weight, before)


def test_rates_follow_the_share_of_their_group() -> None:
    optimizer = MuonAndAdamW(network(), SETTINGS)
    set_rate(optimizer, 0.04)
    assert [group["lr"] for group in optimizer.param_groups] == [0.04, 0.02]
    plain = torch.optim.SGD(nn.Linear(2, 2).parameters(), 1.0)
    set_rate(plain, 0.5)
    assert plain.param_groups[0]["lr"] == 0.5
