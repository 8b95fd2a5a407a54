from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
