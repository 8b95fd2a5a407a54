"""What a page can tell of a run: `report.json`, the typed facts that `clean` writes and the page is made from.

Facts are measured numbers, names and places; sentences about them are made in this room when the page is written. What
a run did not have (no test set, no poison manifest, no self-test, too few images) is None or empty here, and the page
says so in its own words. Folders are named in `Folders`; every picture is a key below one of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.apart import path_from
from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.json_file import read_json
from diffclean.data.registry import is_there
from diffclean.errors import DiffcleanError
from diffclean.evaluation.listed import ListFigures
from diffclean.evaluation.metrics import Rate
from diffclean.evaluation.variations import LabelPreservation, TriggerSurvival
from diffclean.report.reading import from_json
from diffclean.results import json_text, plain

REPORT_FILE = "report.json"
FORMAT = "diffclean-report"
FORMAT_VERSION = 1
LIMIT_BYTES = 64 * 2**20
"""Of `report.json`: its largest parts are capped, but a data set may have many thousand classes."""


@dataclass(frozen=True)
class Folder:
    """A folder, or another data set, that can be found again when it is moved together with `report.json`.

    Attributes:
        path: where it was, absolute; empty where there is none.
        from_here: the same relative to the folder of `report.json`; empty if they are not on one disk.
    """

    path: str = ""
    from_here: str = ""

    @classmethod
    def seen_from(cls, here: Path, where: Path | str) -> Folder:
        """A folder (or an address) as `report.json` in the folder `here` names it."""
        text = str(where)
        if "://" in text:
            return cls(text)
        return cls(os.path.realpath(text), path_from(os.path.realpath(here), os.path.realpath(text)))

    def found(self, here: Path) -> str | None:
        """Where it is now, seen from the folder of `report.json`: moved along with it, or where it was; None: gone."""
        if "://" in self.path:
            return self.path
        beside = os.path.normpath(os.path.realpath(here) + "/" + self.from_here) if self.from_here else ""
        return next((path for path in (beside, self.path) if path and is_there(path)), None)


@dataclass(frozen=True)
class Folders:
    """Where pictures and lists lie.

    Attributes:
        data: the suspect data set.
        variations: what `variate` made of all of it, for the pictures beside the suspects.
        suspects: the name of the list of suspects (`data.suspects`) relative to the folder of `report.json`; empty
            where there is none.
    """

    data: Folder = Folder()
    variations: Folder = Folder()
    suspects: str = ""


@dataclass(frozen=True)
class Measured:
    """What was measured of one classifier. None: it was not measured.

    Attributes:
        clean_accuracy: CA.
        attack_success_rate: ASR; needs an attack that is known.
        robust_accuracy: RA; the same.
        benign_landing: of test images of other classes *without* a trigger, those that are predicted as the target.
            An ASR can hardly be lower than this.
    """

    clean_accuracy: Rate | None = None
    attack_success_rate: Rate | None = None
    robust_accuracy: Rate | None = None
    benign_landing: Rate | None = None


@dataclass(frozen=True)
class Outcome:
    """Teacher and student on the test set.

    Attributes:
        before: the teacher that was trained on the data as they are.
        after: the student.
        again: the teacher that was trained without the suspects; None where there is none.
        test: what they were measured on, in words, such as "./test" or "a tenth of the data that was held back".
        held_back: whether the test images are a part of the suspect data: then their labels are suspect, too.
        attack: the attack of the poison manifest; empty where none was given.
        target: its target class; empty for all-to-all.
        fired: whether the attack works on the first teacher; None where no attack is known.
        defense_effectiveness: DER; None where it was not measured.
    """

    before: Measured = Measured()
    after: Measured = Measured()
    again: Measured | None = None
    test: str = ""
    held_back: bool = False
    attack: str = ""
    target: str = ""
    fired: bool | None = None
    defense_effectiveness: float | None = None


@dataclass(frozen=True)
class Suspect:
    """An image that the page shows, in the gallery of suspects or beside it.

    Attributes:
        key: in the data set.
        label: the class that the data set says it shows.
        score: the detector's; None where it gave none. Higher is more suspect.
        probability: in [0, 1], that it is poisoned; None where the detector does not say.
        variation: key of one of its variations below `Folders.variations`; empty where there is none.
        why: what speaks against this image, in a sentence; empty where the reason is the one of its class.
        poisoned: what the poison manifest says; None where there is none.
    """

    key: str
    label: str
    score: float | None = None
    probability: float | None = None
    variation: str = ""
    why: str = ""
    poisoned: bool | None = None


@dataclass(frozen=True)
class ClassScores:
    """How the scores of one class are spread, and what the detector concluded.

    Attributes:
        name: the class.
        images: how many were judged.
        suspects: how many of them are listed.
        separation: the detector's measure of how clearly the listed images differ from the others.
        limit: the separation from which on images are listed.
        why: what speaks for or against the class, in one sentence.
        too_few: whether it has too few images to be judged.
        low: the score where the first bin begins.
        high: the score where the last bin ends.
        kept: images that are kept, a number a bin; bins are equally wide. Empty where there are no scores.
        listed: images that are listed, in the same bins.
        lowest_listed: the lowest score of a listed image; None where none is listed.
        picture: an image file in base64 that shows what the listed images have in common; empty where there is none.
    """

    name: str
    images: int
    suspects: int
    separation: float | None = None
    limit: float | None = None
    why: str = ""
    too_few: bool = False
    low: float = 0.0
    high: float = 1.0
    kept: tuple[int, ...] = ()
    listed: tuple[int, ...] = ()
    lowest_listed: float | None = None
    picture: str = ""


@dataclass(frozen=True)
class Detection:
    """What the search for poisoned images found. `detected.detection` makes it from a list of suspects.

    Attributes:
        detector: its name.
        images: how many images were judged.
        suspects: how many of them are listed.
        unjudged: how many could not be judged.
        classes: in the order of the class numbers.
        shown: suspects for the gallery, the surest first; only some where there are many.
        beside: kept images for the gallery, drawn at random.
        measured: precision and recall, where a poison manifest is known.
        settings: of the detector.
    """

    detector: str
    images: int
    suspects: int
    unjudged: int = 0
    classes: tuple[ClassScores, ...] = ()
    shown: tuple[Suspect, ...] = ()
    beside: tuple[Suspect, ...] = ()
    measured: ListFigures | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """An image before and after.

    Attributes:
        key: below `Folders.data`.
        label: its class.
        variation: key below `Folders.variations`.
        caption: what else there is to say, in a few words; may be empty.
    """

    key: str
    label: str
    variation: str
    caption: str = ""


@dataclass(frozen=True)
class Regenerated:
    """What `variate` did.

    Attributes:
        images: originals that have a variation.
        failed: how many images have none.
        reasons: key -> why, of some of them.
        pairs: to be shown.
        label_preservation: None where it was not measured.
        trigger_survival: None where no attack is known.
    """

    images: int
    failed: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    label_preservation: LabelPreservation | None = None
    trigger_survival: TriggerSurvival | None = None


@dataclass(frozen=True)
class Counts:
    """How many images there are, and what became of them.

    Attributes:
        images: that were found in the data set.
        classes: name -> how many images it has.
        kept: name -> how many of them the student was trained on.
        unreadable: how many cannot be read.
        duplicates: how many are exact copies of another image; None where nobody looked.
        passed_over: what was found and not taken, kind -> how many.
        notes: what else is worth knowing before one believes the result, in sentences (folders that look like splits,
            images larger than the engine's square ...).
    """

    images: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    duplicates: int | None = None
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfTestRow:
    """One attack that was tried on a copy of the data with the same settings.

    Attributes:
        attack: its name.
        rate: poison rate, in [0, 1].
        resembles_training: whether its trigger resembles a corruption that the generator was trained on: then the
            result says less.
        fired: whether the attack worked on the teacher; what did not fire shows nothing.
        recall: of the poisoned images, those that were listed (TPR).
        false_positive_rate: of the clean images, those that were listed (FPR).
        before: the teacher.
        after: the student.
        note: what went wrong, or what else there is to say.
    """

    attack: str
    rate: float
    resembles_training: bool = False
    fired: bool | None = None
    recall: Rate | None = None
    false_positive_rate: Rate | None = None
    before: Measured = Measured()
    after: Measured = Measured()
    note: str = ""


@dataclass(frozen=True)
class SelfTest:
    """The attacks that were tried, on how many images.

    Attributes:
        rows: one an attack.
        images: of the sample that was poisoned.
        skipped: why there was no self-test, in a sentence; empty where there was one.
    """

    rows: tuple[SelfTestRow, ...] = ()
    images: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class GateCheck:
    """One limit that was set.

    Attributes:
        name: the option, such as "max-asr".
        of: what was held against it, in words, such as "badnets (self-test)".
        limit: in percentage points.
        measured: in percentage points; None where it could not be measured, which counts as missed.
        passed: whether it holds.
    """

    name: str
    of: str
    limit: float
    measured: float | None
    passed: bool


@dataclass(frozen=True)
class StepCost:
    """What one step took.

    Attributes:
        name: of the step.
        seconds: by the clock, in all runs together.
        images: that it worked on; 0 where that is no measure of it.
        note: such as "taken over from an earlier run".
    """

    name: str
    seconds: float
    images: int = 0
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """What it took.

    Attributes:
        steps: in order.
        device: that did the work, as people call it.
        price_per_hour: of the machine, where it was given.
        currency: as it was given; may be empty.
        gave_up: what was given up to keep to a budget, in sentences.
    """

    steps: tuple[StepCost, ...] = ()
    device: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    gave_up: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineFacts:
    """What regenerated the pictures.

    Attributes:
        name: as people type it.
        fingerprint: of its content.
        source: the model's id or address and revision.
        licence: what its weights may be used for, in a sentence.
        trained_on: what the generator was trained on, in a sentence.
        runtime: that ran it.
        precision: of its numbers.
    """

    name: str = ""
    fingerprint: str = ""
    source: str = ""
    licence: str = ""
    trained_on: str = ""
    runtime: str = ""
    precision: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known of a run.

    Attributes:
        name: of the data set, for the title.
        created: when the run ended, ISO 8601 in UTC.
        command: that was typed.
        folders: where pictures and lists lie.
        counts: of the images.
        outcome: teacher and student; None where no classifier could be trained.
        detection: None where nothing was searched.
        regenerated: None where nothing was regenerated.
        self_test: None where it is not known whether there was one.
        gate: the limits that were set; empty where none was.
        cost: what it took.
        engine: what regenerated the pictures.
        settings: section (such as "variate", "train") -> name -> value, as resolved.
        seeds: what for -> seed.
        versions: library -> version.
        hashes: file, relative to the folder of `report.json`, -> sha256.
        files: what came out, relative path -> what it is, in a few words.
        not_done: what this run could not do and why, in sentences; the page begins with them.
        not_tested: what was not tested, in sentences; the page adds what no run can know.
    """

    name: str
    created: str = ""
    command: str = ""
    folders: Folders = Folders()
    counts: Counts = field(default_factory=Counts)
    outcome: Outcome | None = None
    detection: Detection | None = None
    regenerated: Regenerated | None = None
    self_test: SelfTest | None = None
    gate: tuple[GateCheck, ...] = ()
    cost: Cost = field(default_factory=Cost)
    engine: EngineFacts = field(default_factory=EngineFacts)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    not_done: tuple[str, ...] = ()
    not_tested: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of `report.json`."""
        return json_text({"format": FORMAT, "format_version": FORMAT_VERSION, **plain(self)}) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `report.json` into a folder, whole; returns its path.

        Raises:
            WriteError: it cannot be written.
        """
        make_folders(folder)
        write_whole(folder / REPORT_FILE, self.to_json().encode())
        return folder / REPORT_FILE


def read_facts(folder: Path) -> Facts:
    """The facts in the `report.json` of a folder.

    Raises:
        DiffcleanError: it is missing, damaged, or of another version.
    """
    path = folder / REPORT_FILE
    content = read_json(path, LIMIT_BYTES)
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise DiffcleanError(f"{path} is no report of diffclean.", "Give the folder that `diffclean clean` wrote.")
    if (version := content.pop("format_version", None)) != FORMAT_VERSION:
        raise DiffcleanError(
            f"{path} has format {version}; this diffclean reads {FORMAT_VERSION}.", "pip install --upgrade diffclean"
        )
    try:
        return from_json(Facts, content)
    except ValueError as error:
        raise DiffcleanError(f"{path} is damaged: {error}.", "Make it anew: diffclean clean DATA") from error
