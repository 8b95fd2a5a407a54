"""The settings of `clean`. This module does not import torch, so that a dry run is quick."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffclean.classifiers.checks import check_size
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.detection.find import DEFAULT_DETECTOR
from diffclean.errors import UsageError
from diffclean.training.loop_config import FLIPS
from diffclean.variation import defaults
from diffclean.workflow.chain_config import Step

CLEANED = ("originals", "variations", "none")
SELF_TEST, OUTPUTS = "self-test", "write what comes out"
STAGES: Mapping[str, tuple[str, ...]] = {
    "teacher": (Step.MIRRORED, Step.TEACHER),
    "suspects": (Step.SUSPECTS,),
    "teacher-anew": (Step.TEACHER_ANEW, Step.SECOND_PASS),
    "variations": (Step.LOOKS, Step.VARIATIONS),
    "student": (Step.STUDENT,),
    "evaluation": (Step.EVALUATION,),
    "self-test": (SELF_TEST,),
    "outputs": (OUTPUTS,),
}
"""What `from_step` may name, in order -> the steps of the chain."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NOT_ASKED = (
    "out",
    "from_step",
    "max_asr",
    "max_loss",
    "cleaned",
    "price_per_hour",
    "currency",
    "data",
    "test",
    "poison",
)
"""Settings that do not change the plan."""


@dataclass(frozen=True)
class CleanConfig:
    """All settings of `clean`. A setting that is None is chosen according to the data.

    Attributes:
        data: the suspect training set, in any format.
        out: the folder of the job.
        test: a clean test set.
        poison: the poison manifest of the data, if the attack is known.
        teacher: a classifier that was trained on the data as it is. None: a teacher is trained.
        arch: the architecture of teacher and student, as in `train`. "auto" chooses it by size and number of images.
        size: the side in px to which images are resized for the classifiers.
        epochs: the number of epochs of each training.
        engine: the engine that makes variations, as in `variate`.
        strength: how far a variation may differ from its source, as in `variate`. None: the engine's default.
        variations: the number of variations of each image.
        detector: the name of the detector, as in `suspects`.
        second_pass: whether to look for suspects that the detector missed, once a teacher was trained without its list.
            None: if there is time for it.
        augment: random crops and flips, as in `train`.
        flip: how images are mirrored, as in `train`. None: as the recipe has it, unless a short training shows that
            classes become something else in the mirror.
        cleaned: what the cleaned data set holds: "originals" or "variations"; "none" for no cleaned data set.
        self_test: whether a part of the data is poisoned as a test. None: if there is time for it.
        budget_s: the number of seconds that the whole job may take. None: no limit.
        max_asr: the highest attack success rate, in percent, that passes the gate. None: no such limit.
        max_loss: the largest loss of clean accuracy, in percentage points, that passes the gate. None: no such limit.
        from_step: the name of a stage. This stage and all later ones are done again.
        price_per_hour: the price of this machine per hour, for the report.
        currency: the currency of that price.
        seed: the seed of everything that is random.
        device: a torch device. None: CUDA if it works, otherwise the CPU.
    """

    data: Path
    out: Path
    test: Path | None = None
    poison: Path | None = None
    teacher: ClassifierFile | None = None
    arch: str = "auto"
    size: int | None = None
    epochs: int | None = None
    engine: str = defaults.ENGINE
    strength: float | None = None
    variations: int | None = None
    detector: str = DEFAULT_DETECTOR
    second_pass: bool | None = None
    augment: bool = True
    flip: str | None = None
    cleaned: str = "originals"
    self_test: bool | None = None
    budget_s: float | None = None
    max_asr: float | None = None
    max_loss: float | None = None
    from_step: str | None = None
    price_per_hour: float | None = None
    currency: str = ""
    seed: int = 1
    device: str | None = None

    def check(self) -> None:
        """Check the settings before any work.

        Raises:
            UsageError: a setting makes no sense; the message lists every mistake.
        """
        limits = {"max_asr": self.max_asr, "max_loss": self.max_loss}
        rules = (
            ("cleaned", f"one of {', '.join(CLEANED)}", self.cleaned in CLEANED),
            ("from_step", f"one of {', '.join(STAGES)}", self.from_step in (None, *STAGES)),
            ("epochs", "at least 1", self.epochs is None or self.epochs >= 1),
            ("variations", "at least 1", self.variations is None or self.variations >= 1),
            ("flip", f"one of {', '.join(FLIPS)}", self.flip in (None, *FLIPS)),
            ("seed", "0 or more", self.seed >= 0),
            ("price_per_hour", "0 or more", self.price_per_hour is None or self.price_per_hour >= 0),
            *((name, "in [0, 100]", value is None or 0 <= value <= 100) for name, value in limits.items()),
        )
        wrong = [f"`{name}` must be {what}, not {getattr(self, name)}" for name, what, holds in rules if not holds]
        check_size(wrong, self.size)
        if wrong:
            raise UsageError("; ".join(wrong) + ".")
        if self.needs_self_test and self.self_test is False:
            raise UsageError(
                "`max_asr` or `max_loss` was given, and nothing will measure an attack success rate, or a loss.",
                "Give a clean test set with `test`, and with `max_asr` the `poison` manifest of the data, or leave the "
                "self-test on.",
            )
        if self.poison is not None and self.test is None:
            raise UsageError(
                "`poison` was given, and no test set to put its trigger on.", "Give a clean test set: `test`"
            )

    @property
    def needs_self_test(self) -> bool:
        """Whether a limit was set that only the self-test can measure."""
        by_success = self.max_asr is not None and self.poison is None
        return by_success or (self.max_loss is not None and self.test is None)

    @property
    def keeps_self_test(self) -> bool:
        """Whether the self-test is done however long it takes: it was asked for, or a limit needs it."""
        return bool(self.self_test) or self.needs_self_test

    @property
    def looks_at_mirrored(self) -> bool:
        """Whether it has to be found out if a training may mirror the images."""
        return self.augment and self.flip is None

    def asked(self) -> dict[str, Any]:
        """Return the settings that decide the plan, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_ASKED}


def seconds_of(text: str) -> float:
    """Convert `2h`, `90m`, `1.5h`, `1h30m` or `3600` (seconds) into seconds.

    Raises:
        UsageError: the text is no such time.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    whole = "".join(number + unit for number, unit in parts) == text.strip().lower()
    seconds = math.fsum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if not (parts and whole and seconds > 0):
        raise UsageError(f"{text!r} is no time.", "Write it like 2h, 90m or 1h30m.")
    return seconds
