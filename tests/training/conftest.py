from pathlib import Path

import pytest

from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig


@pytest.fixture(autouse=True, scope="session")
def networks(tiny_archs: None) -> None:
    """The small networks are there for every test of this folder."""


@pytest.fixture(scope="session")
def teacher(tiny_archs: None, shapes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the shapes that is mostly right."""
    out = tmp_path_factory.mktemp("teacher") / "t.pt"
    loop = LoopConfig(epochs=12, batch_size=32, optimizer="adamw", learning_rate=0.01, device="cpu", tensorboard=False)
    assert train(TrainConfig(shapes[0], out, test=shapes[1], arch="tiny", loop=loop)).metrics.test_accuracy > 0.7
    return out
