"""What `clean` is asked for; no torch here, so that a dry run is quick."""

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
from diffclean.variation import defaults
from diffclean.workflow.chain import Step

CLEANED = ("originals", "variations", "none")
SELF_TEST, OUTPUTS = "self-test", "write what comes out"
STAGES: Mapping[str, tuple[str, ...]] = {
    "teacher": (Step.TEACHER,),
    "suspects": (Step.SUSPECTS,),
    "teacher-anew": (Step.TEACHER_ANEW,),
    "variations": (Step.VARIATIONS, Step.KEPT_VARIATIONS),
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
    """All that `clean` is told. None means that it is chosen by the data.

    Attributes:
        data: the suspect training set, in any format.
        out: the folder of the job.
        test: a clean test set.
        poison: the poison manifest of the data, where the attack is known.
        teacher: a classifier that was trained on the data as they are; None: one is trained.
        arch: of teacher and student, as in `train`; "auto": by the images' size and number.
        size: side in px that classifiers see.
        epochs: of each training.
        engine: as in `variate`.
        strength: as in `variate`; None: the engine's.
        variations: of each image.
        detector: as in `suspects`.
        augment: as in `train`; False where a mirrored image would mean something else.
        cleaned: what lies in the cleaned data set: "originals", "variations" or "none" for no such folder.
        self_test: whether a part of the data is poisoned as a test; None: where there is time for it.
        budget_s: seconds that all of it may take; None: no limit.
        max_asr: the highest attack success rate, in percent, that passes the gate; None: no such limit.
        max_loss: the largest loss of clean accuracy, in percentage points, that passes; None: no such limit.
        from_step: the name of a stage: it and all that follow are done again.
        price_per_hour: of this machine, for the report.
        currency: of that price.
        seed: of everything that is random.
        device: a torch device; None: CUDA where it works, else the CPU.
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
    augment: bool = True
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
        """Refuse what makes no sense, before any work.

        Raises:
            UsageError: with every mistake in it.
        """
        limits = {"max_asr": self.max_asr, "max_loss": self.max_loss}
        rules = (
            ("cleaned", f"one of {', '.join(CLEANED)}", self.cleaned in CLEANED),
            ("from_step", f"one of {', '.join(STAGES)}", self.from_step in (None, *STAGES)),
            ("epochs", "at least 1", self.epochs is None or self.epochs >= 1),
            ("variations", "at least 1", self.variations is None or self.variations >= 1),
            ("seed", "0 or more", self.seed >= 0),
            *((name, "in [0, 100]", value is None or 0 <= value <= 100) for name, value in limits.items()),
        )
        wrong = [f"`{name}` must be {what}, not {getattr(self, name)}" for name, what, holds in rules if not holds]
        check_size(wrong, self.size)
        if wrong:
            raise UsageError("; ".join(wrong) + ".")
        if self.max_asr is not None and self.poison is None and self.self_test is False:
            raise UsageError(
                "`max_asr` was given, and nothing will measure an attack success rate.",
                "Give the `poison` manifest of the data, or leave the self-test on.",
            )
        if self.poison is not None and self.test is None:
            raise UsageError(
                "`poison` was given, and no test set to put its trigger on.", "Give a clean test set: `test`"
            )

    def asked(self) -> dict[str, Any]:
        """What decides the plan, as JSON can say it."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_ASKED}


def seconds_of(text: str) -> float:
    """`2h`, `90m`, `1.5h`, `1h30m` or `3600` (seconds) in seconds.

    Raises:
        UsageError: it is no such time.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip().lower())
    whole = "".join(number + unit for number, unit in parts) == text.strip().lower()
    seconds = math.fsum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    if not (parts and whole and seconds > 0):
        raise UsageError(f"{text!r} is no time.", "Write it like 2h, 90m or 1h30m.")
    return seconds
