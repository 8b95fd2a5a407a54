"""`state.json` records by content what was done in a folder, so that the same command does only what is left."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffclean.data.atomic import write_whole
from diffclean.data.hashes import is_inside, sha256_of
from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError
from diffclean.results import json_text, plain

log = logging.getLogger(__name__)

STATE_FILE = "state.json"
FORMAT = "diffclean-state"
FORMAT_VERSION = 1
_LIMIT_BYTES = 64 * 2**20
_MOST_SECONDS = 1e9
"""The longest that a step may have taken, about thirty years."""


class Ledger:
    """The record of what was done in one folder.

    An outcome is done if it was made from the same inputs (`of`: hashes of data, and settings) and its file is
    unchanged since it was written. If its inputs differ, it is made again, and so is everything that is made from it.

    Args:
        folder: the folder of `state.json` and the outcomes. It need not exist yet.

    Raises:
        DiffcleanError: `state.json` is damaged or has another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / STATE_FILE
        self.notes: dict[str, Any] = {}
        self._outcomes: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self._read()

    def is_done(self, outcome: Path, of: Mapping[str, Any], editable: bool = False) -> bool:
        """Whether an outcome exists, was made from the same inputs, and is unchanged since it was written.

        Args:
            outcome: a file. A folder is never done: the step that fills it checks its content itself.
            of: the inputs of the outcome, as JSON values.
            editable: whether people may change the file. It then counts as done with any content.
        """
        entry = self._outcomes.get(self._name(outcome), {})
        if entry.get("of") != plain(of) or not entry.get("sha256") or not outcome.is_file():
            return False
        return editable or sha256_of(outcome) == entry["sha256"]

    def was_edited(self, outcome: Path) -> bool:
        """Whether a file that was completely written exists and has been changed since."""
        written = self._outcomes.get(self._name(outcome), {}).get("sha256")
        return bool(written) and outcome.is_file() and sha256_of(outcome) != written

    def begin(self, step: str, outcome: Path, of: Mapping[str, Any]) -> None:
        """Record that an outcome is being made. A folder that was made from other inputs is removed.

        The files of an unfinished training stay, because they record their own inputs.
        """
        name, made_of = self._name(outcome), plain(of)
        entry = self._outcomes.get(name, {})
        if entry.get("of") != made_of:
            if entry.get("of"):
                log.info("%s is made anew: %s changed.", outcome, ", ".join(_different(entry["of"], made_of)))
            if outcome.is_dir():
                shutil.rmtree(outcome)
            entry = {}
        self._outcomes[name] = {**entry, "step": str(step), "of": made_of, "sha256": None, "done": False}
        self.write()

    def spent(self, outcome: Path, seconds: float) -> None:
        """Add the time that was spent on an outcome that was begun."""
        entry = self._outcomes[self._name(outcome)]
        entry["seconds"] = round(entry.get("seconds", 0.0) + seconds, 1)
        self.write()

    def end(self, outcome: Path) -> None:
        """Record that an outcome is complete."""
        entry = self._outcomes[self._name(outcome)]
        entry["sha256"] = sha256_of(outcome) if outcome.is_file() else None
        entry["done"] = True
        self.write()

    def note(self, name: str, value: Any) -> None:
        """Record something about the whole job."""
        self.notes[name] = plain(value)
        self.write()

    def forget(self, steps: Sequence[str]) -> None:
        """Forget the outcomes of some steps, so that they are made again."""
        dropped = [name for name, entry in self._outcomes.items() if entry["step"] in steps]
        for name in dropped:
            del self._outcomes[name]
            place = self.folder / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
        self.write()

    @property
    def seconds(self) -> dict[str, float]:
        """Step -> seconds in all runs together, in the order in which the steps were first done."""
        told: dict[str, float] = {}
        for entry in self._outcomes.values():
            told[entry["step"]] = round(told.get(entry["step"], 0.0) + entry.get("seconds", 0.0), 1)
        return told

    @property
    def done(self) -> list[str]:
        """The steps that were finished."""
        return list(dict.fromkeys(entry["step"] for entry in self._outcomes.values() if entry.get("done")))

    def write(self) -> None:
        """Write `state.json` as a whole."""
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, "notes": self.notes, "outcomes": self._outcomes}
        write_whole(self.path, (json_text(content) + "\n").encode())

    def _name(self, outcome: Path) -> str:
        return outcome.relative_to(self.folder).as_posix()

    def _read(self) -> None:
        hint = "Choose another folder with `out`, or remove this one."
        try:
            content = read_json(self.path, _LIMIT_BYTES)
        except DiffcleanError as error:
            raise DiffcleanError(error.message, error.hint or hint) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise DiffcleanError(f"{self.path} was not written by `clean`.", hint)
        if (version := content.get("format_version")) != FORMAT_VERSION:
            raise DiffcleanError(f"{self.path} has format {version}; this diffclean reads {FORMAT_VERSION}.", hint)
        notes, outcomes = content.get("notes"), content.get("outcomes")
        if not (isinstance(notes, dict) and isinstance(outcomes, dict) and all(map(_is_entry, outcomes.items()))):
            raise DiffcleanError(f"{self.path} is damaged: its parts are not what they should be.", hint)
        self.notes, self._outcomes = notes, outcomes


def _is_entry(pair: tuple[str, Any]) -> bool:
    """Whether an entry of `state.json` is valid. Anyone may have written it, and folders are removed by its names."""
    name, entry = pair
    kinds: dict[str, Any] = {"step": str, "of": dict, "sha256": str | None, "seconds": int | float}
    return (
        is_inside(name)
        and isinstance(entry, dict)
        and all(isinstance(entry.get(key, 0), kind) for key, kind in kinds.items())
        and 0 <= entry.get("seconds", 0) < _MOST_SECONDS
    )


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
