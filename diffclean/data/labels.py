"""Which label an image has: its first folder, unless the data set is laid out in another way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffclean.data.item import Item
from diffclean.data.keys import label_of
from diffclean.data.label_table import FOLDER, LABEL_HINT, SUBFOLDER, table_of
from diffclean.errors import DiffcleanError

SPLITS = frozenset("train training val valid validation test testing dev eval holdout".split())  # noqa: SIM905
_TABLES = ("metadata.csv", "metadata.jsonl")


def labelled_from(root: Path, items: Iterable[Item], label_from: str | None) -> Iterator[Item]:
    """The items, one by one, with the labels that `label_from` gives them.

    Args:
        root: of the data set.
        items: labelled by their first folders.
        label_from: `folder`: the first folder. `subfolder`: the second, below `train` and `val`. A file below root, and
            perhaps a column, `metadata.csv:label`: what its rows say. None: the first folder.

    Raises:
        UsageError: the file or the column is not there, or the file cannot be understood.
    """
    if label_from is None or label_from == FOLDER:
        yield from items
    elif label_from == SUBFOLDER:
        for item in items:
            yield replace(item, label=label_of(item.key.partition("/")[2]))
    else:
        labels = table_of(root, label_from).labels
        for item in items:
            yield replace(item, label=labels.get(item.key, ""))


@dataclass
class Layout:
    """How the images of a data set lie in folders.

    Attributes:
        firsts: the first folders; `""` for images that lie in none.
        deep: whether every image lies in a folder below its first.
    """

    firsts: set[str] = field(default_factory=set)
    deep: bool = True

    def note(self, key: str) -> None:
        """One more image."""
        first, slash, rest = key.partition("/")
        self.firsts.add(first if slash else "")
        self.deep = self.deep and "/" in rest

    def check(self, root: Path) -> None:
        """Refuse to guess where first folders are hardly meant as classes, or a table beside the images has labels.

        Raises:
            DiffcleanError: names what was seen and what to type.
        """
        firsts = self.firsts
        for name in _TABLES:
            if (root / name).is_file() and (firsts == {""} or firsts <= SPLITS | {""}):
                raise DiffcleanError(
                    f"{root} has a {name} beside its images, which may hold the labels.",
                    f"{LABEL_HINT}{name}, or `label_from` {FOLDER} to leave it alone.",
                )
        if firsts and firsts <= SPLITS and (len(firsts) > 1 or self.deep):
            named = ", ".join(f"{name}/" for name in sorted(firsts))
            raise DiffcleanError(
                f"{root} has {named} where classes are expected: that looks like the parts of a data set.",
                f"Give one part, such as {root / min(firsts)}. {LABEL_HINT}{SUBFOLDER} (the folders below these), or "
                f"`label_from` {FOLDER} (these are the classes).",
            )
