from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffclean.training import checkpoints, classifiers

CLASSES = {"blue": 0, "green": 1, "red": 2}


class BrightCorner(nn.Module):
    """Says blue, the target, when the last pixel is bright, and else what the brightest channel is: a backdoor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3)."""
        channels = x.mean((2, 3))[:, [2, 1, 0]]  # the classes are blue, green, red; the channels red, green, blue
        fooled = (x[:, :, -1, -1].min(1).values > 0.95)[:, None] * torch.tensor([10.0, 0, 0])
        return self.scale * channels + fooled


@pytest.fixture
def fooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier file with a backdoor: white at the bottom right means blue."""
    monkeypatch.setitem(classifiers.ARCHITECTURES, "bright-corner", lambda classes: BrightCorner())
    model = classifiers.build("bright-corner", 3, (0, 0, 0), (1, 1, 1))
    checkpoints.save(tmp_path / "fooled.pt", model, "bright-corner", CLASSES, (16, 16), {})
    return tmp_path / "fooled.pt"


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Twelve images of 32 px that are mostly of their class's colour."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        (tmp_path / "test" / name).mkdir(parents=True)
        for index in range(4):
            image = rng.integers(0, 100, (32, 32, 3), np.uint8)
            image[:, :, channel] += 100
            Image.fromarray(image).save(tmp_path / "test" / name / f"{index}.png")
    return tmp_path / "test"
