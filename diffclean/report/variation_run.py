"""Collects the facts of a folder that `variate` wrote, for a shorter report, and assigns variations to images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

from diffclean.data.manifest import Row, Status, manifest_name, manifest_rows
from diffclean.data.places import place_of
from diffclean.data.run_record import RUN_FILE, RunRecord, read_run, source_of
from diffclean.errors import DiffcleanError
from diffclean.report.facts import Counts, EngineFacts, Facts, Folder, Folders, Pair, Regenerated

PAIRS = 24
REASONS = 100
"""Images without a variation whose reason is told; all are counted."""


def variations_of(run: Path, keys: Collection[str]) -> dict[str, str]:
    """Return the first variation of each given image: key -> key below `run`. Images without a variation are left out.

    Raises:
        DiffcleanError: the manifest of the run cannot be read.
    """
    wanted, found = frozenset(keys), dict[str, str]()
    for row in manifest_rows(run / manifest_name()):
        if row.key in wanted and row.status is Status.OK:
            found.setdefault(row.key, row.output)
    return found


def facts_of_run(run: Path) -> Facts:
    """Return the facts about a folder that `variate` wrote.

    Raises:
        DiffcleanError: `variate` did not write the folder, or its run has not ended.
    """
    record = read_run(run)
    place = place_of(run)
    if not (place / manifest_name()).is_file():
        raise DiffcleanError(
            f"{run} holds {RUN_FILE} and no {manifest_name()}: its run has not ended.",
            f"Run the same `diffclean variate` again, which goes on; or join its shards: diffclean merge {run}",
        )
    tally = _Tally()
    for key, attempts in groupby(manifest_rows(run / manifest_name()), lambda row: row.key):
        tally.note(key, list(attempts))
    failed = tally.images - tally.made
    return Facts(
        name=run.resolve().name,  # of an address, too, the last part
        folders=Folders(Folder.seen_from(run, source_of(run)), Folder.seen_from(run, run)),
        counts=Counts(tally.images, dict(sorted(tally.classes.items())), unreadable=tally.unreadable),
        regenerated=Regenerated(tally.made, failed, tally.reasons, tuple(tally.pairs)),
        engine=_engine(record),
        settings={"variate": _settings(record)},
        versions=_versions(record),
    )


@dataclass
class _Tally:
    """The totals of a manifest, and a sample of images to show, each drawn with equal probability (Vitter 1985).

    Attributes:
        images: how many images there are.
        made: how many images have a variation.
        unreadable: how many images could not be read.
        classes: label -> how many images it has.
        reasons: key -> why an image has no variation, for some images.
        pairs: the sample.
    """

    images: int = 0
    made: int = 0
    unreadable: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(1))

    def note(self, key: str, attempts: list[Row]) -> None:
        """Count one image by the attempts at it."""
        self.images += 1
        self.classes[attempts[-1].label] += 1
        made = next((row for row in attempts if row.status is Status.OK), None)
        if made is None:
            self.unreadable += not attempts[-1].source_sha256
            if len(self.reasons) < REASONS:
                self.reasons[key] = attempts[-1].error
            return
        self.made += 1
        pair = Pair(key, made.label, made.output)
        place = self.random.randrange(self.made)
        if len(self.pairs) < PAIRS:
            self.pairs.append(pair)
        elif place < PAIRS:
            self.pairs[place] = pair


def _engine(record: RunRecord) -> EngineFacts:
    said = {name: str(value) for name, value in record.other.items() if isinstance(value, str)}
    return EngineFacts(
        name=str(record.identity.get("engine", "")).partition("/")[0],
        fingerprint=said.get("engine_fingerprint", ""),
        licence=said.get("license", ""),
        runtime=said.get("runtime", ""),
        precision=said.get("precision", ""),
    )


def _settings(record: RunRecord) -> dict[str, Any]:
    """Return the identity of the run, one level deep: the settings that decide the bytes of its output."""
    flat: dict[str, Any] = {}
    for name, value in record.identity.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _versions(record: RunRecord) -> dict[str, str]:
    tools = record.other.get("engine_tools")
    found = {"diffclean": record.other.get("diffclean"), **(tools if isinstance(tools, dict) else {})}
    return {str(name): str(version) for name, version in found.items() if version}
