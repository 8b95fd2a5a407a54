"""What an attack is. A new attack is one file and one line in `registry`; docs/attacks.md shows a whole one."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Protocol

from diffclean.attacks.draws import Draws
from diffclean.data.pixels import Pixels


class Form(StrEnum):
    """Where a trigger is put on: some attacks look different there."""

    TRAIN = "train"
    """On a poisoned image of a training set."""
    COVER = "cover"
    """On an image of a training set that keeps its true label, to teach that less than the whole trigger is none."""
    TEST = "test"
    """On an image that is to fool the trained model."""


class Labels(StrEnum):
    """What happens to the labels of poisoned images."""

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
        """What people type."""

    @property
    def citation(self) -> str:
        """Where it comes from."""

    @property
    def default_parameters(self) -> Mapping[str, Any]:
        """Every parameter there is, with its default; values as JSON has them."""

    @property
    def like_corruptions(self) -> bool:
        """Whether the trigger resembles what `micro` was trained to remove (see `pretraining.corruptions`)."""

    @property
    def labels(self) -> Labels:
        """The mode that the paper uses; a user can ask for another."""

    @property
    def cover_ratio(self) -> float:
        """Cover images for each poisoned image, in the paper."""

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """All parameters, checked and complete: they alone say what the trigger looks like.

        What is drawn once for all images (a pattern) is fixed here, from `seed`, and files are taken in, so that a
        manifest that holds the result can be replayed on a test set anywhere.

        Raises:
            UsageError: unknown parameters and values that make no sense, all of them.
        """

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """A triggered copy of one image.

        Args:
            image: (H, W, 3) uint8 RGB, not changed.
            draws: random numbers of this image alone, for what differs between images.
            parameters: from `resolve`.
            form: where the trigger is put on.
            label: the image's true class.

        Returns:
            (H, W, 3) uint8.

        Raises:
            UsageError: the trigger does not fit the image.
        """
