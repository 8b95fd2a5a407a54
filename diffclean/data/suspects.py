"""The list of suspects: `suspects.json`, which images `diffclean suspects` thinks are poisoned, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffclean.data.atomic import make_folders, write_whole
from diffclean.errors import DiffcleanError

SUSPECTS_FILE = "suspects.json"
FORMAT = "diffclean-suspects"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class JudgedImage:
    """One image.

    Attributes:
        key: in the source.
        answer: the class that the teacher says it shows.
        drop: how much of the logit of that class variation takes away.
        suspect: whether it should be left out.
    """

    key: str
    answer: str
    drop: float
    suspect: bool


@dataclass(frozen=True)
class JudgedClass:
    """The images to which the teacher gives one answer.

    Attributes:
        name: the class.
        images: how many.
        suspects: of them.
        separation: see `mixture.Split`.
        limit: the separation from which on the upper group is taken for poisoned.
    """

    name: str
    images: int
    suspects: int
    separation: float
    limit: float


@dataclass(frozen=True)
class SuspectList:
    """All that was found.

    Attributes:
        teacher: sha256 of its file.
        classes: in the teacher's order.
        images: in the run's order.
        missing: key -> why an image was not judged.
    """

    teacher: str
    classes: list[JudgedClass]
    images: list[JudgedImage]
    missing: dict[str, str]

    @property
    def keys(self) -> frozenset[str]:
        """Of the suspects."""
        return frozenset(image.key for image in self.images if image.suspect)

    def write(self, path: Path) -> None:
        """Write it whole or not at all.

        Raises:
            WriteError: it cannot be written.
        """
        make_folders(path.parent)
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "teacher": self.teacher}
        head |= {"classes": [asdict(judged) for judged in self.classes], "missing": self.missing}
        rows = ",\n".join(json.dumps(asdict(image)) for image in self.images)  # a line each: there may be a million
        write_whole(path, f'{json.dumps(head, indent=1)[:-2]},\n "images": [\n{rows}\n]}}\n'.encode())


def read_suspects(path: Path) -> frozenset[str]:
    """The keys of the suspects in a file that `diffclean suspects` wrote.

    Raises:
        DiffcleanError: it is missing, damaged, or something else.
    """
    try:
        content: Any = json.loads(path.read_bytes())
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError("not a list of suspects that this version reads")
        return frozenset(str(row["key"]) for row in content["images"] if row["suspect"] is True)
    except OSError as error:
        raise DiffcleanError(f"{path}: {error.strerror}.", "Make it: diffclean suspects --teacher t.pt") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DiffcleanError(
            f"{path} is not a list of suspects ({type(error).__name__}: {error}).",
            f"Give the {SUSPECTS_FILE} that `diffclean suspects` wrote.",
        ) from error
