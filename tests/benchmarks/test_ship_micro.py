"""Shipping a pretrained model: what its files say of it."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import ship_micro

from diffclean.cli.main import main
from diffclean.engine.manifest import SUMS_NAME
from diffclean.pretraining.config import PretrainConfig
from diffclean.pretraining.corruptions import CORRUPTIONS
from diffclean.pretraining.pretrain import pretrain


@pytest.mark.parametrize(("coarse", "kind"), [(False, "plain"), (True, "varied")])
def test_the_card_and_the_recipe_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarse: bool, kind: str
) -> None:
    shape = {"batch": 8, "images": 16, "size": 16, "channels": 8, "layers": 1, "heads": 2, "validate_every": 1}
    config = PretrainConfig(**shape, coarse_views=coarse, corruptions=CORRUPTIONS[kind])
    images = np.random.default_rng(0).integers(0, 256, (160, 16, 16, 3), np.uint8)
    pretrain(images, tmp_path / "run", config, stop=Event())
    monkeypatch.setattr(ship_micro, "TARGET", tmp_path / "micro")
    monkeypatch.setattr(sys, "argv", ["ship_micro.py", str(tmp_path / "run"), "--machine", "a core", "--hours", "0.1"])
    ship_micro.main()
    card = (tmp_path / "micro/README.md").read_text()
    assert ("averaged over cells" in card, "smooth random fields" in card) == (coarse, kind == "varied")
    assert json.loads((tmp_path / "micro" / SUMS_NAME).read_text())
    recipe = tomllib.loads((tmp_path / "micro/pretrain.toml").read_text())["pretrain"]
    assert (recipe["coarse-views"], recipe["corruptions"], recipe["images"]) == (coarse, kind, 16)
    command = ["pretrain", str(tmp_path), "-o", str(tmp_path / "again"), "--dry-run"]
    (tmp_path / "picture.png").write_bytes(b"")
    assert main([*command, "--config", str(tmp_path / "micro/pretrain.toml")]) == 0
