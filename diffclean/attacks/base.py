"""The Protocol of an attack.

A new attack is one file and one line in `registry`; docs/attacks.md shows a complete one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from diffclean.attacks.draws import Draws
from diffclean.data.pixels import Pixels


class Form(StrEnum):
    """The kind of image that gets the trigger; some attacks look different on each."""

    TRAIN = "train"
    """A poisoned image of a training set."""
    COVER = "cover"
    """An image of a training set that keeps its true label, to teach that a part of the trigger is not a trigger."""
    TEST = "test"
    """An image that is to fool the trained model."""


class Labels(StrEnum):
    """How poisoned images are labelled."""

    ALL_TO_ONE = "all-to-one"
    """They get the target class (dirty label)."""
    ALL_TO_ALL = "all-to-all"
    """Each gets the class after its own, the last one the first (dirty label; Gu et al. 2017, all-to-all)."""
    CLEAN = "clean"
    """Only images of the target class are poisoned, and they keep their label (clean label)."""


class Attack(Protocol):
    """A way to put a trigger on an image."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def citation(self) -> str:
        """The source of the attack."""

    @property
    def default_parameters(self) -> Mapping[str, Any]:
        """All parameters with their defaults; the values are what JSON can express."""

    @property
    def like_corruptions(self) -> bool:
        """Whether the trigger resembles what `micro` was trained to remove (see `pretraining.corruptions`)."""

    @property
    def labels(self) -> Labels:
        """The label mode of the paper; a user can choose another."""

    @property
    def cover_ratio(self) -> float:
        """The number of covers for each poisoned image, as in the paper."""

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Check and complete all parameters, so that they alone determine the trigger.

        What is drawn once for all images (a pattern) is determined here from `seed`, and files are embedded, so that a
        manifest with the result can be replayed on a test set anywhere.

        Raises:
            UsageError: parameters are unknown or have invalid values; the message names all of them.
        """

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """Make a triggered copy of one image.

        Args:
            image: (H, W, 3) uint8 RGB, which is not changed.
            draws: the random numbers of this image, for what differs between images.
            parameters: the parameters, from `resolve`.
            form: the kind of image that gets the trigger.
            label: the true class of the image.

        Returns:
            (H, W, 3) uint8.

        Raises:
            UsageError: the trigger does not fit the image.
        """
