"""The label of an image: its first folder, unless the data set has another layout."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from diffclean.data.bucket_path import AnyFile
from diffclean.data.classes import class_to_idx
from diffclean.data.item import Item
from diffclean.data.keys import label_of
from diffclean.data.label_table import FOLDER, LABEL_HINT, SUBFOLDER, table_of
from diffclean.data.passed_over import PassedOver
from diffclean.errors import DiffcleanError, UsageError

log = logging.getLogger(__name__)

SPLITS = frozenset("train training val valid validation test testing dev eval holdout".split())  # noqa: SIM905
_TABLES = ("metadata.csv", "metadata.jsonl")


def labelled_from(root: AnyFile, items: Iterable[Item], label_from: str | None) -> Iterator[Item]:
    """Give the items, one by one, the labels that `label_from` defines.

    Args:
        root: the folder of the data set.
        items: the items, labelled by their first folders.
        label_from: `folder`: the first folder of the path. `subfolder`: the second folder, below `train` and `val`. A
            file below `root`, with or without a column, such as `metadata.csv:label`: the labels in its rows. None: the
            first folder.

    Raises:
        UsageError: the file or the column does not exist, the file cannot be parsed, or it names none of the images.
    """
    if label_from is None or label_from == FOLDER:
        yield from items
    elif label_from == SUBFOLDER:
        for item in items:
            yield replace(item, label=label_of(item.key.partition("/")[2]))
    else:
        labels = table_of(root, label_from).labels
        count = missed = 0
        first = ""
        for item in items:
            count += 1
            if item.key not in labels:
                missed += 1
                first = first or item.key
            yield replace(item, label=labels.get(item.key, ""))
        _check_named(root, label_from, labels, first, missed, count)


def _check_named(
    root: AnyFile, label_from: str, labels: Mapping[str, str], first: str, missed: int, count: int
) -> None:
    """Refuse a table that names none of the images, and warn of one that misses some."""
    if not missed:
        return
    if missed == count:
        raise UsageError(
            f"{label_from} names none of the {count:,} images in {root}. It has {next(iter(labels), 'no rows')!r}, the "
            f"first image is {first!r}.",
            f"Expected paths below {root}, with their extensions and with / between folders.",
        )
    log.warning("%s: %s names no label for %s of %s images, such as %s.", root, label_from, missed, count, first)


@dataclass
class Layout:
    """How the images of a data set are arranged in folders.

    Attributes:
        firsts: the first folders; `""` for images that lie in none.
        deep: whether every image lies in a folder below its first folder.
    """

    firsts: set[str] = field(default_factory=set)
    deep: bool = True

    def note(self, key: str) -> None:
        """Record one more image."""
        first, slash, rest = key.partition("/")
        self.firsts.add(first if slash else "")
        self.deep = self.deep and "/" in rest

    def classes(
        self, root: AnyFile, label_from: str | None, labels: set[str], passed_over: PassedOver
    ) -> dict[str, int]:
        """The number of each label, with those of folders whose images were all passed over.

        Args:
            root: the folder of the data set.
            label_from: as for `labelled_from`.
            labels: the labels of its images.
            passed_over: what was not read.

        Raises:
            DiffcleanError: as for `check`, if `label_from` is None.
        """
        if label_from is None:
            self.check(root)
        by_folder = label_from in (None, FOLDER) and labels != {""}
        return class_to_idx(labels | (passed_over.labels if by_folder else set()))

    def check(self, root: AnyFile) -> None:
        """Refuse to guess if the first folders do not look like classes, or if a table may hold the labels.

        Raises:
            DiffcleanError: says what was found and what to type.
        """
        firsts = self.firsts
        for name in _TABLES:
            if (root / name).is_file() and (firsts == {""} or firsts <= SPLITS | {""}):
                raise DiffcleanError(
                    f"{root} has a {name} beside its images, which may hold the labels.",
                    f"{LABEL_HINT}{name}, or `label_from` {FOLDER} to ignore this file.",
                )
        if firsts and firsts <= SPLITS and (len(firsts) > 1 or self.deep):
            named = ", ".join(f"{name}/" for name in sorted(firsts))
            raise DiffcleanError(
                f"{root} has {named} where classes are expected, which look like the parts of a data set.",
                f"Name one part, such as {root / min(firsts)}. {LABEL_HINT}{SUBFOLDER} (the folders below these), or "
                f"`label_from` {FOLDER} (these are the classes).",
            )
