"""What a source contains that is not read as an image.

It is counted by kind and reported, so that nothing is lost silently.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from diffclean.data.formats import HEIF_EXTENSIONS
from diffclean.data.keys import key_from_path

# Made by a NAS, an operating system or a tool, not by a person: Synology, QNAP, Windows, macOS, NetApp, fsck, Python,
# Node, GoodSync, TensorBoard. Compared without regard to case.
_FOLDERS = frozenset(
    {
        "@eadir",
        "@recycle",
        "@recently-snapshot",
        "@sharebin",
        "@sharesnap",
        "@synoeastream",
        "@synoresource",
        "@tmp",
        "@transcode",
        "@__thumb",
        "__thumbs__",
        "_gsdata_",
        "$extend",
        "$windows.~bt",
        "$windows.~ws",
        "msdownld.tmp",
        "node_modules",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "$recycle.bin",
        "recycler",
        "recycled",
        "system volume information",
        "lost+found",
        "__macosx",
        "network trash folder",
        "temporary items",
        "thevolumesettingsfolder",
        "__pycache__",
    }
)
_FOLDER_PATTERN = re.compile(r"found\.\d{3}|.*\.tensorboard", re.DOTALL)
_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "folder.jpg:encryptable"})
_OWN = re.compile(r"run\.json|journal.*\.jsonl|manifest.*\.parquet|poison\.json|\.diffclean.*")
_SHOWN = 6


def is_machine_made(name: str) -> bool:
    """Whether a folder of this name was made by a machine; it is not a class, and what lies in it is not read."""
    folded = name.casefold()
    return folded in _FOLDERS or bool(_FOLDER_PATTERN.fullmatch(folded))


def is_of_the_system(name: str) -> bool:
    """Whether a file of this name was left by an operating system."""
    return name.casefold() in _FILES


def is_own(name: str) -> bool:
    """Whether a file of this name at the top of a data set is one of diffclean's."""
    return bool(_OWN.fullmatch(name))


@dataclass
class PassedOver:
    """What a walk over a folder did not take.

    Attributes:
        kinds: extension in lower case (`""`: none) -> files.
        hidden: hidden files and folders, and what operating systems leave.
        machine_made: folders that no person made, as keys.
        barren: folders that hold files and not one image, as keys; of such inside one another the outermost.
        problems: what else people should know, in sentences.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    machine_made: list[str] = field(default_factory=list)
    barren: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _folders: set[str] = field(default_factory=set)  # that hold what was passed over
    _holding: set[str] = field(default_factory=set)  # that hold images, or folders that do

    def add(self, relative: str, kind: str) -> None:
        """Count one more file.

        Args:
            relative: its path below the source.
            kind: its extension.
        """
        self.kinds[key_from_path(kind) if kind else ""] += 1
        if "/" in relative:
            self._folders.add(key_from_path(relative).rpartition("/")[0])

    def image_in(self, folder: str) -> None:
        """Record that a folder, given as a key, holds an image."""
        while folder and folder not in self._holding:
            self._holding.add(folder)
            folder = folder.rpartition("/")[0]

    def end(self) -> None:
        """After all images were recorded, find the folders that hold none."""
        found = set()
        for folder in self._folders - self._holding:
            parts = folder.split("/")
            outer = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
            found.add(next(one for one in outer if one not in self._holding))
        self.barren = sorted(found)
        self.machine_made.sort()

    @property
    def labels(self) -> set[str]:
        """The classes that hold no image that is read; they keep their numbers."""
        return {folder for folder in self.barren if "/" not in folder}

    def as_json(self) -> dict[str, Any]:
        """The counts for a result."""
        kinds = {kind or "without extension": count for kind, count in self.kinds.most_common()}
        return {
            "files": self.kinds.total(),
            "kinds": kinds,
            "hidden": self.hidden,
            "folders_no_person_made": self.machine_made,
            "folders_without_images": self.barren,
        }

    def lines(self) -> list[str]:
        """The lines for people; none if only hidden files were passed over."""
        lines = []
        if self.kinds:
            shown = [
                f"{count} {f'.{kind}' if kind else 'without extension'}" for kind, count in self.kinds.most_common()
            ]
            lines.append(f"{self.kinds.total()} files are not images that diffclean reads: {_named(shown)}.")
        if self.kinds.keys() & HEIF_EXTENSIONS:
            lines.append("HEIC images need an extra: pip install 'diffclean[heic]'")
        if self.barren:
            lines.append(f"Folders that hold nothing else: {_named(self.barren)}. Classes keep their numbers.")
        if self.machine_made:
            lines.append(f"Folders that no person made were passed over: {_named(self.machine_made)}.")
        return lines + self.problems


def _named(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
