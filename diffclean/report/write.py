"""Writes the report on a folder that `clean` wrote, or a shorter one on a folder that `variate` wrote."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffclean.data.address import is_address, spelled
from diffclean.data.atomic import contained
from diffclean.data.hashes import sha256_of
from diffclean.data.places import place_of
from diffclean.data.run_record import RUN_FILE
from diffclean.data.suspects import read_suspects
from diffclean.errors import DiffcleanError
from diffclean.report.facts import REPORT_FILE, Facts, read_facts
from diffclean.report.page import PAGE_FILE, write_page
from diffclean.report.variation_run import facts_of_run
from diffclean.report.verdict import Tone, verdict
from diffclean.report.words import images

_BEGINS = b"<!doctype html>"


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        page: the file of the report, or its address.
        tone: the colour of the verdict: good, mixed, bad or plain.
        verdict: the first sentence of the report.
        reasons: the reasons for the verdict.
    """

    page: Path | str
    tone: Tone
    verdict: str
    reasons: tuple[str, ...]


def write_report(folder: Path, out: Path | None = None, dry_run: bool = False) -> WrittenReport:
    """Write the report on a folder.

    Args:
        folder: a folder that `clean` or `variate` wrote, the latter on disk or in a bucket.
        out: the file of the report, on disk or in a bucket. None: `report.html` in the folder.
        dry_run: whether only to say what would be written.

    Raises:
        DiffcleanError: there is nothing to report on the folder, or `out` is another kind of file.
        WriteError: the report cannot be written.
    """
    facts = facts_of(folder)
    place = folder / PAGE_FILE if out is None else out
    _check_place(place)
    if not dry_run:
        write_page(facts, folder, place)
    found = verdict(facts)
    page = spelled(place) if is_address(place) else place
    return WrittenReport(page, found.tone, found.sentence, found.reasons)


def facts_of(folder: Path) -> Facts:
    """Return the facts about a folder; raises like `write_report`."""
    place = place_of(folder)
    if not place.is_dir():
        raise DiffcleanError(f"There is no folder {place}.", "Give the folder that `diffclean clean` wrote.")
    if (place / REPORT_FILE).is_file():
        if not isinstance(place, Path):
            raise DiffcleanError(
                f"{place} holds what `clean` wrote, which is read on this machine only.",
                "Copy the folder with the tools of the store; then: diffclean report FOLDER",
            )
        return _with_changes(read_facts(folder), folder)
    if (place / RUN_FILE).is_file():
        return facts_of_run(folder)
    raise DiffcleanError(
        f"{place} holds neither {REPORT_FILE} nor {RUN_FILE}, so there is nothing to report.",
        "Give a folder that `diffclean clean` or `diffclean variate` wrote.",
    )


def _with_changes(facts: Facts, folder: Path) -> Facts:
    """Add a note to the facts if the list of suspects has changed since the run."""
    name = facts.folders.suspects
    written = facts.hashes.get(name)
    if not written or not (path := contained(folder, name)).is_file() or sha256_of(path) == written:
        return facts
    said = (
        f"The list of suspects was changed after this run: it holds {images(len(read_suspects(path)))} now. What this "
        "page tells is of the list as it was."
    )
    return replace(facts, not_done=(*facts.not_done, said))


def _check_place(page: Path) -> None:
    """Refuse to overwrite a file that is not a report."""
    place = place_of(page)
    if place.is_dir():
        raise DiffcleanError(f"{place} is a folder.", f"Name a file: -o {place / PAGE_FILE}")
    try:
        with place.open("rb") as file:
            begins = file.read(len(_BEGINS))
    except OSError:
        return
    if begins and begins != _BEGINS:
        raise DiffcleanError(f"{place} exists and is no report.", "Name another file with -o.")
