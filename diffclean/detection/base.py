"""The interface of a detector. To add a detector, add one file to this package and one line to `registry`."""

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
    """What a detector works from.

    Attributes:
        images: the suspect training set: N images, each with the label that it has in the data set (which is suspect
            too).
        device: the torch device on which networks run.
        teacher: a classifier that was trained on these images as they are, or None if there is none.
        variations: the variations of the same images, in the same order (`keys` agree), or None if there are none.
        seed: the seed of all random numbers.
        stop: an event; once it is set, the detector stops.
        retrained: a classifier that was trained like the teacher, but without the images in `listed`; or None.
        listed: the keys of the images on an earlier list.
    """

    images: Samples
    device: torch.device
    teacher: LoadedClassifier | None = None
    variations: Samples | None = None
    seed: int = 1
    stop: Event | None = None
    retrained: LoadedClassifier | None = None
    listed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Judgement:
    """What a detector found.

    Attributes:
        scores: (N,) float64; the higher the score, the more suspect the image. Scores rank the images of one detector
            and cannot be compared between detectors.
        probabilities: (N,) float64 in [0, 1], the probability that an image is poisoned.
        suspects: (N,) bool, the images that should be left out of training.
        classes: what was found about each class, in the order of the class numbers.
    """

    scores: Scores
    probabilities: Scores
    suspects: NDArray[np.bool_]
    classes: list[JudgedClass]


class Detector(Protocol):
    """A way to find poisoned images."""

    @property
    def name(self) -> str:
        """The name that users type after `--detector`."""

    @property
    def citation(self) -> str:
        """The publication that the method comes from."""

    @property
    def needs_teacher(self) -> bool:
        """Whether `Evidence.teacher` must be given."""

    @property
    def needs_variations(self) -> bool:
        """Whether `Evidence.variations` must be given."""

    @property
    def needs_retrained(self) -> bool:
        """Whether `Evidence.retrained`, and with it an earlier list, must be given; other detectors refuse it."""

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        """Judge every image.

        Args:
            evidence: what the detector works from; everything that it needs is present.
            progress: is advanced for each image that a network was trained on or asked about.

        Raises:
            DiffcleanError: the data cannot be judged in this way; the error names the reason and what to type instead.
            Interrupted: `evidence.stop` was set.
        """
