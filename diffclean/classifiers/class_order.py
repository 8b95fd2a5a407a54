"""Checks whether a classifier's classes are in the assumed order.

Programs sort class folders differently: by their bytes (0, 1, 10, 11, 2), by their numbers (0, 1, 2, ... 11), or
ignoring case. With a wrong order, a good classifier gives almost only wrong answers, and nothing else reveals the
cause.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_SHOWN_CLASSES = 30
_MOST_CLASSES = 2000
"""With more classes, the table of answers by labels is not computed."""
_BETTER = 0.2
"""The additional share of answers that another order must explain to be mentioned."""


def natural_order(names: list[str]) -> list[str]:
    """Names sorted as people do: runs of digits are compared by their value."""
    return sorted(names, key=lambda name: [(int(part), "") if part.isdigit() and part.isascii() else (-1, part)
                                           for part in re.split(r"([0-9]{1,18})", name)])  # fmt: skip


def is_poor(agreement: float, classes: int) -> bool:
    """Whether the agreement with the labels is closer to chance than to perfect."""
    return agreement < 0.5 * (1 + 1 / max(classes, 1))


def better_order(
    answers: Tensor, labels: Tensor, class_to_idx: Mapping[str, int]
) -> tuple[str, list[str], float] | None:
    """Find an order of the classes in which a classifier's answers fit the labels much better.

    Args:
        answers: (N,) int64, the index of the largest logit.
        labels: (N,) int64, with the numbers of `class_to_idx`.
        class_to_idx: the order that was assumed.

    Returns:
        The name of the order, the classes in that order, and the share of labels that it explains; None if there is
        none.
    """
    names = sorted(class_to_idx, key=class_to_idx.__getitem__)
    if len(names) > _MOST_CLASSES:
        return None
    counts = torch.bincount(labels * len(names) + answers, minlength=len(names) ** 2).view(len(names), len(names))
    whole = max(1, int(counts.sum()))
    orders = {
        "natural order": natural_order(names),
        "order of their bytes": sorted(names),
        "order without regard to capitals": sorted(names, key=str.casefold),
        "the order that its answers suggest": [names[label] for label in _matched(counts)],
    }

    def share(order: list[str]) -> float:
        """Logit i stands for the class order[i]."""
        return sum(int(counts[class_to_idx[name], index]) for index, name in enumerate(order)) / whole

    found = {title: share(order) for title, order in orders.items()}
    title = max(found, key=found.__getitem__)  # of equally good orders the first, so a plain order before a guess
    return (title, orders[title], found[title]) if found[title] >= share(names) + _BETTER else None


def _matched(counts: Tensor) -> list[int]:
    """A different label for each logit; the most frequent pairs are chosen first."""
    size = len(counts)
    taken: dict[int, int] = {}
    labels: set[int] = set()
    for pair in counts.flatten().argsort(descending=True, stable=True).tolist():
        label, logit = divmod(pair, size)
        if logit not in taken and label not in labels:
            taken[logit] = label
            labels.add(label)
            if len(taken) == size:
                break
    return [taken[logit] for logit in range(size)]


def check_agreement(
    name: str, answers: Tensor, labels: Tensor, class_to_idx: Mapping[str, int], what: str, role: str = "classifier"
) -> float:
    """The share of labels that a classifier agrees with. If it is poor, a warning says which order would fit.

    Args:
        name: the name of the classifier.
        answers: as for `better_order`.
        labels: as for `better_order`.
        class_to_idx: as for `better_order`.
        what: a description of the images.
        role: what the hints call the classifier, as in `ClassifierFile`.
    """
    right = int((answers == labels).sum())
    share = right / max(1, len(labels))
    if not is_poor(share, len(class_to_idx)):
        return share
    log.warning("%s agrees with only %d of %d labels of %s (%.0f %%).", name, right, len(labels), what, 100 * share)
    if (found := better_order(answers, labels, class_to_idx)) is not None:
        title, order, better = found
        listed = json.dumps(order, ensure_ascii=False) if len(order) <= _SHOWN_CLASSES else ""
        log.warning(
            "Its logits seem to be in another class order: in %s it would agree with %.0f %%. Write that order to a "
            "file%s and give it: `%s_classes` FILE",
            title, 100 * better, f" ({listed})" if listed else "", role,
        )  # fmt: skip
    else:
        log.warning(
            "No other class order fits better. Check that these data belong to it, that its classes are in this order "
            "(`%s_classes`), and that its normalisation is right (`%s_mean`, `%s_std`).",
            role, role, role,
        )  # fmt: skip
    return share
