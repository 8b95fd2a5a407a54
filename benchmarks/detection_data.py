"""The data sets of `detection.py`. Each is a training and a test folder that is made once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from robustness_data import clean_copy, subset

from diffclean.data.folder import ImageFolder
from diffclean.workflow.scenes import draw_scene
from diffclean.workflow.signs import FACES

COUNTS = {"cifar10": 10_000}
"""Training images that are used of a data set, spread evenly over its classes; of others all are used."""

TINY_STEP = 5
"""Every fifth class of Tiny ImageNet is taken."""
TINY_TRAIN = (100, 400)
"""Training images of its smallest and of its largest class."""
TINY_TEST = 60

SIGN_SIDE = 32
SIGNS_TRAIN, SIGNS_TEST = 220, 40
"""Images a class."""
NIGHT_SHARE = 0.4
NIGHT_LIGHT = 0.35
NIGHT_TINT = (1.0, 0.9, 0.65)
NIGHT_NOISE = 5.0
"""Standard deviation in grey levels."""


@dataclass(frozen=True)
class DataSet:
    """A data set of the benchmark.

    Attributes:
        name: what people type; with an attack's name it decides to which half a pair belongs.
        train: the clean training set.
        test: the clean test set.
        work: where everything that is made from it is kept.
    """

    name: str
    train: Path
    test: Path
    work: Path

    @cached_property
    def clean(self) -> Path:
        """The training set as `poison` would write it."""
        return clean_copy(self.train, self.work)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Class -> how many training images it has, in the order of the classes' numbers."""
        folder = ImageFolder(self.train)
        counts = dict.fromkeys(folder.class_to_idx, 0)
        for item in folder.items():
            counts[item.label] += 1
        return counts

    @cached_property
    def longest_side(self) -> int:
        """Of its first image, in pixels."""
        with Image.open(ImageFolder(self.train).items()[0].path) as image:
            return max(image.size)

    def target(self, seed: int) -> str:
        """The target class of a seed: whatever the attack is, it is the same."""
        classes = list(self.sizes)
        return classes[_number(f"{self.name}/{seed}") % len(classes)]


def data_set(spec: str, work: Path, count: int | None = None) -> DataSet:
    """Make a data set, or find it made.

    Args:
        spec: `signs`; `tiny40=FOLDER` with the extracted folders of Tiny ImageNet's classes; or `NAME=TRAIN:TEST`.
        work: where all data sets are kept.
        count: training images that are used, spread evenly over the classes; None: as `COUNTS` says.

    Raises:
        ValueError: `spec` is something else, or has a number of images of its own.
    """
    name, _, where = spec.partition("=")
    own = work / (name if count is None else f"{name}-{count}")
    if count is not None and ":" not in where:
        raise ValueError(f"{name} has a number of images of its own, so --count {count} cannot be kept")
    if name == "signs" and not where:
        return DataSet(name, *_signs(own), own)
    if name == "tiny40" and ":" not in where:
        return DataSet(name, *_tiny(Path(where), own), own)
    train, colon, test = where.partition(":")
    if not colon:
        raise ValueError(f"--data {spec}: expected signs, tiny40=FOLDER or NAME=TRAIN:TEST")
    return DataSet(name, subset(Path(train), COUNTS.get(name, 0) if count is None else count, own), Path(test), own)


def _tiny(source: Path, work: Path) -> tuple[Path, Path]:
    """Every fifth class, with as many images as its turn in the order of the names' hashes says."""
    out = work / "images"
    if not out.exists():
        part = work / "images.part"
        shutil.rmtree(part, ignore_errors=True)
        names = sorted(path.name for path in source.iterdir() if path.is_dir())[::TINY_STEP]
        counts = np.linspace(*TINY_TRAIN, len(names)).round().astype(int)
        for name, count in zip(sorted(names, key=_number), counts, strict=True):
            images = sorted((source / name).iterdir(), key=lambda path: _number(path.name))
            for split, chosen in (("train", images[:count]), ("test", images[count : count + TINY_TEST])):
                (part / split / name).mkdir(parents=True)
                for path in chosen:
                    shutil.copyfile(path, part / split / name / path.name)
        part.rename(out)
    return out / "train", out / "test"


def _signs(work: Path) -> tuple[Path, Path]:
    """The faces of the demonstration, by day and by night."""
    out = work / "images"
    if not out.exists():
        part = work / "images.part"
        shutil.rmtree(part, ignore_errors=True)
        for split, count in (("train", SIGNS_TRAIN), ("test", SIGNS_TEST)):
            for name in FACES:
                (part / split / name).mkdir(parents=True)
                for index in range(count):
                    rng = np.random.default_rng(_number(f"{split}/{name}/{index}"))
                    scene = draw_scene(name, SIGN_SIDE, rng)
                    scene = _by_night(scene, rng) if rng.random() < NIGHT_SHARE else scene
                    scene.save(part / split / name / f"{index:04d}.png")
        part.rename(out)
    return out / "train", out / "test"


def _by_night(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The same scene in the little yellow light of a street lamp, with a camera's noise."""
    light = np.asarray(scene, np.float32) * NIGHT_LIGHT * np.array(NIGHT_TINT, np.float32)
    noisy = light + rng.normal(0, NIGHT_NOISE, light.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def linked(poisoned: Path, clean: Path) -> None:
    """Let images of `poisoned` that `clean` has with the same key and bytes be the same file on the disk."""
    for item in ImageFolder(poisoned).items():
        twin = clean / item.key
        if twin.is_file() and twin.read_bytes() == item.path.read_bytes():
            item.path.unlink()
            os.link(twin, item.path)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
