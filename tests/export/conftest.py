"""A family of one small component, exported in a second: how engines are kept does not depend on what is in them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from diffclean.export.cache import cached_engine
from diffclean.families.base import Component, Model
from diffclean.families.micro import Micro
from diffclean.families.registry import FAMILIES, Recipe, recipe_for


class Mini(Micro):
    """The decoder alone."""

    name = "mini"

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        full = super().load(directory)
        return replace(full, family=self.name, components={"vae_decoder": full.components["vae_decoder"]})


class Unlucky(Micro):
    """Its second component cannot be exported."""

    name = "unlucky"

    def load(self, directory: Path, image_size: int | None = None) -> Model:
        decoder = super().load(directory).components["vae_decoder"]
        stubborn = Component(Stubborn(), decoder.inputs, decoder.inputs)
        return Model(self.name, {"vae_decoder": decoder, "unet": stubborn})


class Stubborn(nn.Module):
    def forward(self, sample: Tensor) -> Tensor:
        return sample if float(sample.sum()) > 0 else -sample


@pytest.fixture
def recipe(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Recipe:
    """A recipe of the small family, and an empty cache of the test's own."""
    monkeypatch.setitem(FAMILIES, "mini", f"{__name__}:Mini")
    monkeypatch.setitem(FAMILIES, "unlucky", f"{__name__}:Unlucky")
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO)
    return mini_recipe(Path(shutil.copytree(tiny_model, tmp_path / "model")))


def mini_recipe(model: Path) -> Recipe:
    return Recipe("mini", "mini", model, recipe_for(str(model)).defaults)


@pytest.fixture(scope="session")
def mini_engine(tiny_model: Path, once: Callable[..., Path]) -> Path:
    """The engine of the small family, exported once; its folder is called as in a cache."""

    def export(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FAMILIES, "mini", f"{__name__}:Mini")
            patch.setenv("DIFFCLEAN_CACHE", str(folder))
            cached_engine(mini_recipe(tiny_model))

    (engine,) = (once("mini", export) / "engines").iterdir()
    return engine


@pytest.fixture
def kept(recipe: Recipe, mini_engine: Path, tmp_path: Path) -> Path:
    """The engine of `recipe` in the test's cache, as if an earlier run had exported it."""
    place = tmp_path / "cache/engines" / mini_engine.name
    shutil.copytree(mini_engine, place)
    assert cached_engine(recipe) == place  # the record says where the model is now
    return place
