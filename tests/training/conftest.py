import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from diffclean.data.classes import class_to_idx
from diffclean.data.keys import variation_name
from diffclean.data.manifest import Row, write_manifest
from diffclean.data.run_record import RunRecord, open_run
from diffclean.data.sources import ImageFolder
from diffclean.training import classifiers
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig

MakeVariations = Callable[..., Path]


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


def tiny_net(classes: int) -> nn.Module:
    """A few thousand weights, with all that a resumed run could get wrong: running means and dropout."""
    first = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))


def plain_net(classes: int) -> nn.Module:
    """The same without batch normalisation and dropout."""
    first = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))


@pytest.fixture(autouse=True, scope="session")
def tiny_archs() -> Iterator[None]:
    """Networks that train in no time, by the names `tiny` and `plain`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifiers.ARCHITECTURES, "tiny", tiny_net)
        patch.setitem(classifiers.ARCHITECTURES, "plain", plain_net)
        yield


@pytest.fixture(scope="session")
def teacher(shapes: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the shapes that is mostly right."""
    out = tmp_path_factory.mktemp("teacher") / "t.pt"
    loop = LoopConfig(epochs=12, batch_size=32, optimizer="adamw", learning_rate=0.01, device="cpu", tensorboard=False)
    assert train(TrainConfig(shapes[0], out, test=shapes[1], arch="tiny", loop=loop)).metrics["test_accuracy"] > 0.7
    return out


def varied(source: Path, out: Path, variants: int = 1, change: Callable[[Row], Row] = lambda row: row) -> Path:
    """A folder as `variate` writes it; its images are the originals, a little darker each time."""
    folder = ImageFolder(source)
    classes = class_to_idx(item.label for item in folder.items())
    open_run(out, RunRecord({"source": str(source)}, classes))
    rows = []
    for item in folder.items():
        data = folder.read(item)
        with Image.open(item.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        for variant in range(variants):
            key = variation_name(item.key, variant, "png")
            row = change(Row(item.key, variant, key, item.label, source_sha256=hashlib.sha256(data).hexdigest()))
            rows.append(row)
            if row.output:
                (out / key).parent.mkdir(exist_ok=True)
                Image.fromarray((pixels * (1 - 0.05 * variant)).astype(np.uint8)).save(out / key)
    write_manifest(out, rows, class_to_idx=classes)
    return out


@pytest.fixture(scope="session")
def make_variations() -> MakeVariations:
    """`make_variations(source, out, variants=2, change=function of each row)`."""
    return varied
