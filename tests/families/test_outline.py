"""The family in CONTRIBUTING is a whole one: run as it stands there, it makes what the family makes that it is like."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from diffclean.families.base import Family, Model, noise_shapes
from diffclean.families.registry import FAMILIES, family_named
from diffclean.families.seeds import noise_for

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> Family:
    """Registered by one line, as the page says."""
    code = re.search(
        r"```python\n(from diffclean\.families import .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert code is not None
    module = ModuleType("families_mine")
    exec(code[1], vars(module))
    monkeypatch.setitem(sys.modules, "families_mine", module)
    monkeypatch.setitem(FAMILIES, "mine", "families_mine:Mine")
    return family_named("mine")


def made_by(family: Family, model: Model, pixels: Tensor) -> tuple[Tensor, ...]:
    """What every method of a family makes of two pictures, by the torch modules."""

    def call(name: str, inputs: Any) -> tuple[Tensor, ...]:
        component = model.components[name]
        with torch.no_grad():
            outputs = component.module(*(inputs[port.name] for port in component.inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    noise = noise_for([1, 2], noise_shapes(model.components))
    condition = family.condition(call, pixels, noise, family.look(0.5))
    latent = family.encode(call, pixels, noise)
    (predicted,) = call("unet", {"sample": latent, "timestep": torch.full((2,), 500.0), **condition})
    return (*condition.values(), *family.withhold(condition).values(), predicted, *family.decode(call, predicted))


def test_the_outline_is_a_whole_family(mine: Family, model_of: Any, squares: Any) -> None:
    pixels, other = torch.from_numpy(squares), family_named("sd-image-variations")
    directory = model_of("sd-image-variations")
    found = made_by(mine, mine.load(directory), pixels)
    expected = made_by(other, other.load(directory), pixels)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_it_has_all_that_a_family_has(mine: Family) -> None:
    assert [name for name in vars(Family) if not name.startswith("_") and not hasattr(mine, name)] == []
