from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

Needed = Callable[[str], dict[str, Any]]

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty noise images of 16 px in three classes."""
    root = tmp_path / "clean"
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for index in range(10):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(root / name / f"{index}.png")
    return root


class Linear(nn.Module):
    """Logits are weighted sums of the pixels, so the gradient of a two-class loss is known to a factor."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, 3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 16, 16) -> (B, classes)."""
        return torch.einsum("bchw,kchw->bk", x, self.weight)


@pytest.fixture(scope="session")
def linear_weight() -> Tensor:
    """(3, 3, 16, 16): those of `linear_model`; small, so that probabilities are not all or nothing."""
    return 0.01 * torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def linear_model(tmp_path_factory: pytest.TempPathFactory, linear_weight: Tensor) -> str:
    """The file of a linear classifier of 16 px images in the classes of `folder`."""
    from diffclean.classifiers import checkpoints, networks

    networks.ARCHITECTURES["linear-for-tests"] = Linear
    model = networks.build("linear-for-tests", 3, (0, 0, 0), (1, 1, 1))
    model.net.weight.data.copy_(linear_weight)  # type: ignore[union-attr, operator]
    path = tmp_path_factory.mktemp("model") / "clean.pt"
    checkpoints.save(path, model, "linear-for-tests", dict(zip(CLASSES, range(3), strict=True)), (16, 16), {})
    return str(path)


@pytest.fixture(scope="session")
def needed(linear_model: str) -> Needed:
    """`needed("label-consistent")`: the parameters that an attack cannot do without."""

    def parameters(attack: str) -> dict[str, Any]:
        return {"model": linear_model, "steps": 2} if attack == "label-consistent" else {}

    return parameters
