from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def draw(root: Path, count: int, seed: int, side: int = 16) -> Path:
    """Bars that lie, stand, or fill a square, in random colours, on noise."""
    rng = np.random.default_rng(seed)
    for name in ("lying", "standing", "square"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 60, (side, side, 3), np.uint8)
            at, colour = int(rng.integers(2, side - 8)), rng.integers(120, 256, 3, np.uint8)
            rows = slice(at, at + 6) if name == "square" else slice(at, at + 2) if name == "lying" else slice(2, -2)
            columns = (
                slice(at, at + 6) if name == "square" else slice(at, at + 2) if name == "standing" else slice(2, -2)
            )
            image[rows, columns] = colour
            Image.fromarray(image).save(root / name / f"{index:03d}.png")
    return root


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training and a test set of drawn shapes, 16 px."""
    root = tmp_path_factory.mktemp("shapes")
    return draw(root / "train", 60, 0), draw(root / "test", 20, 1)
