"""Decides which images of a data set are poisoned and where they are written, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffclean.attacks.base import Form, Labels
from diffclean.attacks.check import Mistakes
from diffclean.attacks.choose import check_rates, check_target, chosen_covers, chosen_images
from diffclean.attacks.outputs import distinct, labelled, output_name
from diffclean.attacks.record import PoisonManifest
from diffclean.attacks.registry import get
from diffclean.data.sources import Source
from diffclean.errors import UsageError

RATE = 0.1
SEED = 1


@dataclass(frozen=True)
class PoisonPlan:
    """What `poison.write` will do.

    Attributes:
        source: the clean data set.
        manifest: the manifest, still without its rows.
        outputs: the key in the poisoned data set by key, for every image.
        forms: the form of the trigger by key, for the images that carry one.
    """

    source: Source
    manifest: PoisonManifest
    outputs: dict[str, str]
    forms: dict[str, Form]

    def count(self, *forms: Form) -> int:
        """The number of images that carry one of these forms."""
        return sum(form in forms for form in self.forms.values())


def training_plan(
    data: Path,
    attack: str,
    rate: float | None = None,
    target: str | None = None,
    seed: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    labels: str | None = None,
    poison_target_class: bool | None = None,
    cover_rate: float | None = None,
) -> PoisonPlan:
    """Plan a poisoned training set, in which `round(rate * all images)` images get the trigger.

    Args:
        data: root/<class>/**/image.
        attack: a name in `registry.ATTACKS`.
        rate: the poison rate, in (0, 1), the share of all images whatever the labels; None stands for `RATE`.
        target: the target class; None for all-to-all.
        seed: the seed of the choice of images, of the pattern, and of what differs between images; None stands for
            `SEED`.
        parameters: parameters of the attack that replace its defaults.
        labels: the label mode, see `base.Labels`; None stands for that of the attack's paper.
        poison_target_class: whether images of the target class may be poisoned too, with all-to-one.
        cover_rate: the share of all images that are covers; None stands for as many covers for each poisoned image as
            in the paper.

    Raises:
        UsageError: there is no such attack, parameter, class or mode, or a rate is not possible; the message lists all
            mistakes.
        DiffcleanError: the data cannot be used.
    """
    chosen = get(attack)
    rate, seed = RATE if rate is None else rate, SEED if seed is None else seed
    mode = _mode(labels or chosen.labels)
    source = labelled(data)
    items = source.items()
    # Names must be distinct for every seed.
    distinct({item.key: output_name(item, item.label, source.name(item)) for item in items})
    cover_rate = chosen.cover_ratio * rate if cover_rate is None else cover_rate
    mistakes = Mistakes()
    resolved: dict[str, Any] = {}
    with mistakes:
        resolved = chosen.resolve(parameters or {}, seed)
    with mistakes:
        check_target(target, mode, poison_target_class, source.class_to_idx, data)
    with mistakes:
        check_rates(rate, cover_rate, len(items))
    mistakes.tell()
    both = bool(poison_target_class)
    poisoned = set(chosen_images(items, rate, mode, target, both, seed))
    covers = chosen_covers(items, poisoned, cover_rate, target, seed)
    classes = source.class_to_idx
    manifest = PoisonManifest(attack, resolved, rate, target or "", seed, mode, classes, Form.TRAIN, both, cover_rate)
    forms = dict.fromkeys(poisoned, Form.TRAIN) | dict.fromkeys(covers, Form.COVER)
    outputs = {
        item.key: output_name(
            item, manifest.target_of(item.label) if item.key in poisoned else item.label, source.name(item)
        )
        for item in items
    }
    return PoisonPlan(source, manifest, distinct(outputs), forms)


def triggered_plan(manifest: PoisonManifest, data: Path) -> PoisonPlan:
    """Plan a triggered test set, in which *every* image carries the manifest's trigger and keeps its true label.

    Args:
        manifest: the manifest of the data set that the attack was trained on.
        data: root/<class>/**/image, with classes of that data set.

    Raises:
        UsageError: there is a class that the training set did not have.
        DiffcleanError: the data cannot be used.
    """
    source = labelled(data)
    unknown = sorted({item.label for item in source.items()} - set(manifest.class_to_idx))
    if unknown:
        raise UsageError(
            f"{data} has classes that the poisoned training set did not have: {', '.join(unknown[:5])}.",
            f"It had: {', '.join(manifest.class_to_idx)}.",
        )
    outputs = distinct({item.key: output_name(item, item.label, source.name(item)) for item in source.items()})
    test = replace(manifest, rate=1.0, form=Form.TEST, cover_rate=0.0, images=[], failed={})
    return PoisonPlan(source, test, outputs, dict.fromkeys(outputs, Form.TEST))


def _mode(labels: str) -> Labels:
    try:
        return Labels(labels)
    except ValueError:
        raise UsageError(f"There is no label mode {labels!r}.", f"The modes are: {', '.join(Labels)}.") from None
