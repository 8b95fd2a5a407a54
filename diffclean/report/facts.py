"""The facts about a run: `report.json`, which `clean` writes and from which the report is made.

Facts are measured numbers, names and places; this room turns them into sentences when it writes the report. A fact that
a run lacks (without a test set, a poison manifest, a self-test or enough images) is None or empty, and the report says
so in its own words. `Folders` names the folders; every picture is a key below one of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.address import is_address, spelled
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
MOST_LANDING = 0.25
"""Above this share, a classifier takes so much for the target class that its ASR is not excused by it."""
LIMIT_BYTES = 64 * 2**20
"""Of `report.json`: its largest parts are capped, but a data set may have many thousand classes."""


@dataclass(frozen=True)
class Folder:
    """A folder, or another data set, that can be found again when it is moved together with `report.json`.

    Attributes:
        path: the absolute path when the report was written. Empty if there is no such folder.
        from_here: the path relative to the folder of `report.json`. Empty if they are not on one disk.
    """

    path: str = ""
    from_here: str = ""

    @classmethod
    def seen_from(cls, here: Path, where: Path | str) -> Folder:
        """Describe a folder (or an address) as seen from the folder `here`, which holds `report.json`."""
        if is_address(where):
            return cls(spelled(where))
        path = os.path.realpath(where)
        return cls(path, "" if is_address(here) else path_from(os.path.realpath(here), path))

    def found(self, here: Path) -> str | None:
        """Find the folder: moved together with the folder of `report.json`, or at its old place; None if it is gone."""
        if is_address(self.path):
            return self.path
        beside = os.path.normpath(os.path.realpath(here) + "/" + self.from_here) if self.from_here else ""
        return next((path for path in (beside, self.path) if path and is_there(path)), None)


@dataclass(frozen=True)
class Folders:
    """The folders of pictures and lists.

    Attributes:
        data: the suspect data set.
        variations: the output of `variate` for the whole data set, for the pictures beside the suspects.
        suspects: the name of the list of suspects (`data.suspects`) relative to the folder of `report.json`. Empty if
            there is no list.
    """

    data: Folder = Folder()
    variations: Folder = Folder()
    suspects: str = ""


@dataclass(frozen=True)
class Measured:
    """The measurements of one classifier. A value that was not measured is None.

    Attributes:
        clean_accuracy: the clean accuracy.
        attack_success_rate: the attack success rate; it needs a known attack.
        robust_accuracy: the robust accuracy; it needs a known attack, too.
        benign_landing: the share of test images of other classes *without* a trigger that are predicted as the target
            class. An attack success rate can hardly be lower than this.
    """

    clean_accuracy: Rate | None = None
    attack_success_rate: Rate | None = None
    robust_accuracy: Rate | None = None
    benign_landing: Rate | None = None

    @property
    def only_lands(self) -> bool:
        """Whether the ASR is no higher than untriggered images explain, and not so high that this is no excuse."""
        success, landing = self.attack_success_rate, self.benign_landing
        return success is not None and landing is not None and success.value <= min(landing.high, MOST_LANDING)


@dataclass(frozen=True)
class Outcome:
    """Teacher and student on the test set.

    Attributes:
        before: the teacher that was trained on the data as it is.
        after: the student.
        again: the teacher that was trained without the suspects. None if there is none.
        test: the data of the measurement, in words, such as "./test" or "a tenth of the data that was held back".
        held_back: whether the test images are a part of the suspect data. If so, their labels are suspect, too.
        attack: the attack of the poison manifest. Empty if none was given.
        target: the target class of the attack. Empty for all-to-all attacks.
        fired: whether the attack works on the first teacher. None if no attack is known.
        defense_effectiveness: the DER. None if it was not measured.
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
    """An image that the report shows, in the gallery of suspects or beside it.

    Attributes:
        key: the key in the data set.
        label: the class of the image according to the data set.
        score: the score of the detector; higher is more suspect. None if it gave none.
        probability: the probability, in [0, 1], that the image is poisoned. None if the detector does not state it.
        variation: the key of one of its variations below `Folders.variations`. Empty if there is none.
        why: what speaks against this image, in a sentence. Empty if the reason is that of its class.
        poisoned: whether the image is poisoned according to the poison manifest. None without a manifest.
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
    """The distribution of the scores of one class, and the conclusion of the detector.

    Attributes:
        name: the class.
        images: how many images were judged.
        suspects: how many of them are listed.
        separation: the detector's measure of how clearly the listed images differ from the others.
        limit: the separation at and above which images are listed.
        why: what speaks for or against the class, in one sentence.
        too_few: whether the class has too few images to be judged.
        low: the score where the first bin begins.
        high: the score where the last bin ends.
        kept: the number of kept images in each bin; all bins are equally wide. Empty if there are no scores.
        listed: the number of listed images in each bin.
        lowest_listed: the lowest score of a listed image. None if no image is listed.
        picture: an image file in base64 that shows what the listed images have in common. Empty if there is none.
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
    """The result of the search for poisoned images. `detected.detection` makes it from a list of suspects.

    Attributes:
        detector: the name of the detector.
        images: how many images were judged.
        suspects: how many of them are listed.
        unjudged: how many images could not be judged.
        added: how many of the suspects each second pass added. Empty if there was no second pass.
        classes: the classes in the order of their numbers.
        shown: suspects for the gallery, the most certain first. If there are many, only some of them.
        beside: kept images for the gallery, drawn at random.
        measured: precision and recall, if a poison manifest is known.
        settings: the settings of the detector.
    """

    detector: str
    images: int
    suspects: int
    unjudged: int = 0
    added: tuple[int, ...] = ()
    classes: tuple[ClassScores, ...] = ()
    shown: tuple[Suspect, ...] = ()
    beside: tuple[Suspect, ...] = ()
    measured: ListFigures | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """An image and its variation.

    Attributes:
        key: the key of the image below `Folders.data`.
        label: the class of the image.
        variation: the key of the variation below `Folders.variations`.
        caption: further information in a few words; may be empty.
    """

    key: str
    label: str
    variation: str
    caption: str = ""


@dataclass(frozen=True)
class Regenerated:
    """The result of `variate`.

    Attributes:
        images: how many originals have a variation.
        failed: how many images have none.
        reasons: key -> the reason, for some of them.
        pairs: images and variations to show.
        label_preservation: None if it was not measured.
        trigger_survival: None if no attack is known.
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
        images: how many images were found in the data set.
        classes: name of a class -> how many images it has.
        kept: name of a class -> how many of its images the student was trained on.
        unreadable: how many images cannot be read.
        duplicates: how many images are exact copies of another image. None if this was not checked.
        passed_over: kind of file -> how many files were found and not read.
        notes: what a reader should know before trusting the result, in sentences (folders that look like splits,
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
        attack: the name of the attack.
        rate: the poison rate, in [0, 1].
        resembles_training: whether the trigger resembles a corruption that the generator was trained on. If so, the
            result says less.
        fired: whether the attack worked on the teacher. An attack that did not fire shows nothing.
        recall: the share of the poisoned images that were listed (TPR).
        false_positive_rate: the share of the clean images that were listed (FPR).
        before: the teacher.
        after: the student.
        note: what went wrong, or other remarks.
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
    """The attacks of the self-test.

    Attributes:
        rows: one row per attack.
        images: the number of images in the sample that was poisoned.
        skipped: why there was no self-test, in a sentence. Empty if there was one.
    """

    rows: tuple[SelfTestRow, ...] = ()
    images: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class GateCheck:
    """One limit that was set.

    Attributes:
        name: the option, such as "max-asr".
        of: the measurement that was compared with it, in words, such as "badnets (self-test)".
        limit: the limit in percentage points.
        measured: the measurement in percentage points. None if it could not be measured, which counts as missed.
        passed: whether the measurement meets the limit.
    """

    name: str
    of: str
    limit: float
    measured: float | None
    passed: bool


@dataclass(frozen=True)
class StepCost:
    """The cost of one step.

    Attributes:
        name: the name of the step.
        seconds: the wall-clock time in all runs together.
        images: how many images the step worked on. 0 if the number of images does not measure its work.
        note: a remark such as "taken over from an earlier run".
    """

    name: str
    seconds: float
    images: int = 0
    note: str = ""


@dataclass(frozen=True)
class Cost:
    """The cost of a run.

    Attributes:
        steps: the steps in order.
        device: the name of the device that did the work.
        price_per_hour: the price of the machine per hour, if it was given.
        currency: the currency as it was given; may be empty.
        gave_up: what was given up to keep to a budget, in sentences.
    """

    steps: tuple[StepCost, ...] = ()
    device: str = ""
    price_per_hour: float | None = None
    currency: str = ""
    gave_up: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineFacts:
    """The engine that regenerated the pictures.

    Attributes:
        name: the name as people type it.
        fingerprint: the fingerprint of its content.
        source: the model's id or address and revision.
        licence: what its weights may be used for, in a sentence.
        trained_on: what the generator was trained on, in a sentence.
        runtime: the runtime that ran it.
        precision: the precision of its numbers.
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
    """All facts about a run.

    Attributes:
        name: the name of the data set, for the title.
        created: when the run ended, ISO 8601 in UTC.
        command: the command that was typed.
        folders: the folders of pictures and lists.
        counts: the numbers of images.
        outcome: the measurements of teacher and student. None if no classifier could be trained.
        detection: the result of the search for poisoned images. None if there was no search.
        regenerated: the result of `variate`. None if no image was regenerated.
        self_test: the result of the self-test. None if it is not known whether there was one.
        gate: the limits that were set. Empty if none was set.
        cost: the cost of the run.
        engine: the engine that regenerated the pictures.
        settings: section (such as "variate", "train") -> name -> value, as resolved.
        seeds: purpose -> seed.
        versions: library -> version.
        hashes: file, relative to the folder of `report.json`, -> sha256.
        files: relative path of an output file -> a description in a few words.
        not_done: what this run could not do and why, in sentences. The report begins with them.
        not_tested: what was not tested, in sentences. The report adds what no run can know.
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
        """Return the text of `report.json`."""
        return json_text({"format": FORMAT, "format_version": FORMAT_VERSION, **plain(self)}) + "\n"

    def write(self, folder: Path) -> Path:
        """Write `report.json` into a folder, as a whole, and return its path.

        Raises:
            WriteError: the file cannot be written.
        """
        make_folders(folder)
        write_whole(folder / REPORT_FILE, self.to_json().encode())
        return folder / REPORT_FILE


def read_facts(folder: Path) -> Facts:
    """Read the facts from the `report.json` of a folder.

    Raises:
        DiffcleanError: the file is missing or damaged, or has another version.
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
