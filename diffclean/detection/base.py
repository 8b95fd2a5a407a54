"""What a detector is. A new detector is one file in this room and one line in `registry`."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from diffclean.data.suspects import JudgedClass
from diffclean.progress import Progress

if TYPE_CHECKING:
    import torch

    from diffclean.classifiers.loading import LoadedClassifier
    from diffclean.datasets.samples import Samples

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What a detector is given.

    Attributes:
        images: the suspect training set: N images, each with the label that it was found with (suspect as well).
        device: where networks run.
        teacher: a classifier that was trained on these images as they are; None: there is none.
        variations: the variations of the same images, in the same order (`keys` agree); None: there are none.
        seed: of everything that is random.
        stop: set by someone who wants the work to end.
    """

    images: Samples
    device: torch.device
    teacher: LoadedClassifier | None = None
    variations: Samples | None = None
    seed: int = 1
    stop: Event | None = None


@dataclass(frozen=True)
class Judgement:
    """What a detector finds.

    Attributes:
        scores: (N,) float64; the higher, the more suspect an image is. They rank the images of one detector and are
            comparable with nothing else.
        probabilities: (N,) float64 in [0, 1], that an image is poisoned.
        suspects: (N,) bool, the images that should be left out.
        classes: what was found of each class, in the order of the class numbers.
    """

    scores: Scores
    probabilities: Scores
    suspects: NDArray[np.bool_]
    classes: list[JudgedClass]


class Detector(Protocol):
    """A way to find poisoned images."""

    @property
    def name(self) -> str:
        """What people type."""

    @property
    def citation(self) -> str:
        """Where the method comes from."""

    @property
    def needs_teacher(self) -> bool:
        """Whether `Evidence.teacher` must be given."""

    @property
    def needs_variations(self) -> bool:
        """Whether `Evidence.variations` must be given."""

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """Judge every image.

        Args:
            evidence: what there is to look at; what the detector needs is there.
            progress: told of each image that a network was trained on or asked about.

        Raises:
            DiffcleanError: the data cannot be judged in this way, with the reason and what to type instead.
            Interrupted: `evidence.stop` was set.
        """
