"""How a classifier is trained, whatever its loss; no torch here, so that a dry run is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

LEARNING_RATES = {"sgd": 0.1, "adamw": 1e-3}
WEIGHT_DECAYS = {"sgd": 5e-4, "adamw": 0.05}
SCHEDULES = ("cosine", "multi-step", "constant")
PRECISIONS = ("bf16", "fp16", "fp32")

_NOT_IN_IDENTITY = ("device", "precision", "save_every_s", "memory_gib", "tensorboard")


@dataclass(frozen=True)
class LoopConfig:
    """All that the training loop is told.

    Attributes:
        epochs: times that each image is seen.
        batch_size: images a step, over all processes.
        optimizer: sgd (with Nesterov momentum) or adamw.
        learning_rate: at its peak; None: `LEARNING_RATES`.
        momentum: of SGD.
        weight_decay: None: `WEIGHT_DECAYS`.
        schedule: cosine: a linear rise over `warmup` of the steps, then half a cosine to zero (one cycle; Smith and
            Topin 2017, arXiv 1708.07120). multi-step: down to a tenth at each of `milestones`. constant. Those
            two rise first only where a `warmup` is given.
        warmup: share of the steps; None: 0.2 for cosine, else 0.
        milestones: shares of the run.
        ema: decay of an average of the weights, which is then what is measured and written; 0: none.
        augment: random crops and flips.
        turn: largest random turn, in degrees.
        zoom: random scales from 1/(1 + zoom) to 1 + zoom.
        validation_share: share of the images, chosen by their names, that are held out and measured each epoch.
        patience: stop after so many epochs without a lower validation loss, and write the best; None: never.
        precision: bf16 or fp16 (autocast) or fp32; None: what is quickest here.
        compile: run the network through torch.compile.
        device: a torch device; None: CUDA where it works, else the CPU.
        seed: of the weights, the order and the augmentation.
        save_every_s: seconds between two states that a killed run can go on from.
        memory_gib: larger sets of decoded images are read anew each epoch; None: half of what is free.
        tensorboard: write its events too.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: float | None = None
    milestones: tuple[float, ...] = (0.5, 0.75)
    ema: float = 0.0
    augment: bool = True
    turn: float = 0.0
    zoom: float = 0.0
    validation_share: float = 0.0
    patience: int | None = None
    precision: str | None = None
    compile: bool = False
    device: str | None = None
    seed: int = 1
    save_every_s: float = 30.0
    memory_gib: float | None = None
    tensorboard: bool = True

    @property
    def changes_images(self) -> bool:
        """Whether an image looks otherwise each time that it is shown."""
        return self.augment or self.turn > 0 or self.zoom > 0

    @property
    def peak_rate(self) -> float:
        """The learning rate, resolved."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay, resolved."""
        return WEIGHT_DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    @property
    def warmup_share(self) -> float:
        """The warm-up, resolved."""
        return (0.2 if self.schedule == "cosine" else 0.0) if self.warmup is None else self.warmup

    def identity(self) -> dict[str, Any]:
        """What decides the weights, resolved: a run resumes only with the same."""
        content = {name: value for name, value in asdict(self).items() if name not in _NOT_IN_IDENTITY}
        resolved = {"learning_rate": self.peak_rate, "weight_decay": self.decay, "warmup": self.warmup_share}
        return content | resolved | {"milestones": list(self.milestones)}

    def problems(self) -> list[str]:
        """Every setting that makes no sense."""
        positive = self.learning_rate is None or self.learning_rate > 0
        decaying = self.weight_decay is None or self.weight_decay >= 0
        risen = self.warmup is None or 0 <= self.warmup < 1
        ordered = list(self.milestones) == sorted({*self.milestones}) and all(0 < m < 1 for m in self.milestones)
        rules = (
            ("epochs", "at least 1", self.epochs >= 1),
            ("batch_size", "at least 2 (batch normalisation)", self.batch_size >= 2),
            ("optimizer", "sgd or adamw", self.optimizer in LEARNING_RATES),
            ("learning_rate", "above 0", positive),
            ("weight_decay", "0 or more", decaying),
            ("schedule", ", ".join(SCHEDULES), self.schedule in SCHEDULES),
            ("warmup", "in [0, 1)", risen),
            ("milestones", "rising shares of the run, between 0 and 1", ordered),
            ("ema", "in [0, 1)", 0 <= self.ema < 1),
            ("turn", "in [0, 180]", 0 <= self.turn <= 180),
            ("zoom", "in [0, 3]", 0 <= self.zoom <= 3),
            ("validation_share", "in [0, 0.9]", 0 <= self.validation_share <= 0.9),
            ("patience", "at least 1", self.patience is None or self.patience >= 1),
            ("precision", "bf16, fp16 or fp32", self.precision is None or self.precision in PRECISIONS),
        )
        wrong = [f"`{name}` must be {what}, not {getattr(self, name)}" for name, what, holds in rules if not holds]
        if self.patience is not None and self.validation_share == 0:
            wrong.append("`patience` needs images to measure on, such as `validation_share` 0.1")
        return wrong
