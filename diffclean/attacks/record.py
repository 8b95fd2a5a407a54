"""The content of a poison manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks.base import Form, Labels
from diffclean.errors import UsageError

FORMAT = "diffclean-poison"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class PoisonedImage:
    """A row: one image of the poisoned data set.

    Attributes:
        key: the key in the source.
        output: the key in the poisoned data set.
        label: the true class; the class that it was given is the first folder of `output`.
        poisoned: whether it carries the trigger so that the model predicts `target`.
        source_sha256: the hash of the file that was read.
        output_sha256: the hash of the file that was written.
        cover: whether it carries the cover form of the trigger, and keeps its label.
        target: the class that the attack wants a model to predict; empty if `poisoned` is false.
    """

    key: str
    output: str
    label: str
    poisoned: bool
    source_sha256: str
    output_sha256: str
    cover: bool = False
    target: str = ""


@dataclass(frozen=True)
class PoisonManifest:
    """Everything about one poisoned data set.

    Attributes:
        attack: the name in `registry.ATTACKS`.
        parameters: the complete parameters, from `Attack.resolve`.
        rate: the share of all images that are poisoned.
        target: the target class; empty for all-to-all, where `target_of` returns it for each class.
        seed: the seed that determined the poisoned images, and what differs between them.
        labels: how poisoned images of the training set were labelled.
        class_to_idx: the number by class, as in the training set.
        form: `train` for a poisoned training set; `test` if every image is triggered and keeps its label.
        poison_target_class: whether images of the target class may be poisoned too (all-to-one).
        cover_rate: the share of all images that are covers.
        images: one row for each image.
        failed: the reason why an image is missing, by key.
        versions: the versions of the program that wrote it.
    """

    attack: str
    parameters: Mapping[str, Any]
    rate: float
    target: str
    seed: int
    labels: Labels
    class_to_idx: dict[str, int]
    form: Form = Form.TRAIN
    poison_target_class: bool = False
    cover_rate: float = 0.0
    images: list[PoisonedImage] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def target_of(self, label: str) -> str:
        """The class that the attack wants a model to predict for a triggered image of class `label`.

        Raises:
            UsageError: the labels are all-to-all, and the training set has no such class.
        """
        if self.labels is not Labels.ALL_TO_ALL:
            return self.target
        names = list(self.class_to_idx)  # in the order of their numbers
        if label not in self.class_to_idx:
            raise UsageError(f"The attack does not know the class {label!r}.", f"It knows: {', '.join(names)}.")
        return names[(self.class_to_idx[label] + 1) % len(names)]

    def targets(self, class_to_idx: Mapping[str, int]) -> NDArray[np.int64]:
        """`target_of` in the numbers of a model.

        `targets(...)[true]` is what the attack wants for images of class `true`.

        If that is `true` itself (the target class, with all-to-one), a fooled and a right answer are the same, and such
        images count neither for ASR nor for RA.

        Args:
            class_to_idx: the classes of the model, 0 .. N - 1.

        Returns:
            (N,) int64.

        Raises:
            UsageError: there is a class that the model or the attack does not know.
        """
        wanted = [self.target_of(name) for name in sorted(class_to_idx, key=class_to_idx.__getitem__)]
        unknown = sorted(set(wanted) - set(class_to_idx))
        if unknown:
            raise UsageError(
                f"The attack's target class {', '.join(map(repr, unknown))} is not one that the model knows.",
                f"It knows: {', '.join(class_to_idx)}.",
            )
        return np.array([class_to_idx[name] for name in wanted], dtype=np.int64)

    def as_json(self) -> str:
        """The text of `poison.json`, with one line for each image, so that it can be searched and compared."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self), "images": None}
        rows = ",\n".join("  " + json.dumps(asdict(row)) for row in self.images)
        return json.dumps(head, indent=1).replace('"images": null', f'"images": [\n{rows}\n ]', 1) + "\n"
