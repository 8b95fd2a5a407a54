"""The result of `poison`, or of its dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.attacks.base import Form, Labels
from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest
from diffclean.attacks.plan import PoisonPlan
from diffclean.attacks.record import PoisonManifest
from diffclean.results import WHERE_MEASURED, table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class PoisonResult:
    """A poisoned data set.

    Attributes:
        out: its folder.
        attack: the name of the attack.
        parameters: the complete parameters of the attack.
        target: the target class; empty for all-to-all.
        labels: how poisoned images are labelled.
        form: whether it is a poisoned training set or a triggered test set.
        images: the number of images.
        poisoned: the number of poisoned images.
        covers: the number of images that carry the trigger and keep their label.
        failed: the reason why an image could not be read, by key; None if nothing has been written yet.
    """

    out: Path
    attack: str
    parameters: Mapping[str, Any]
    target: str
    labels: Labels
    form: Form
    images: int
    poisoned: int
    covers: int
    failed: dict[str, str] | None = field(default=None, metadata=WHERE_MEASURED)

    @property
    def manifest(self) -> Path:
        """The poison manifest, for `evaluate` and for `poison` of a test set."""
        return self.out / MANIFEST_FILE

    def to_pandas(self) -> DataFrame:
        """A table with a row for each image, as in the poison manifest. Needs pandas."""
        return table(read_poison_manifest(self.manifest).images)


def planned(plan: PoisonPlan, out: Path) -> PoisonResult:
    """The result that a plan would have."""
    count = plan.count(Form.TRAIN, Form.TEST)
    return PoisonResult(out, *_attack(plan.manifest), len(plan.outputs), count, plan.count(Form.COVER))


def written(manifest: PoisonManifest, out: Path) -> PoisonResult:
    """The result after writing."""
    counts = len(manifest.images), sum(r.poisoned for r in manifest.images), sum(r.cover for r in manifest.images)
    return PoisonResult(out, *_attack(manifest), *counts, manifest.failed)


def _attack(made: PoisonManifest) -> tuple[str, Mapping[str, Any], str, Labels, Form]:
    return made.attack, dict(made.parameters), made.target, made.labels, made.form
