"""What a training run is asked to do; no torch here, so that a dry run is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffclean.errors import DiffcleanError, UsageError


@dataclass(frozen=True)
class TrainConfig:
    """All that decides what comes out of `train`.

    Attributes:
        data: labelled image folder, root/<class>/**/image.
        out: `.pt` or `.safetensors`; the log is written beside it as `.jsonl`.
        test: labelled image folder that is measured after the last epoch.
        size: side in px that images are resized to; None: as they are (all must then have one size).
        arch: as in `classifiers.build`.
        learning_rate: peak, for SGD with Nesterov momentum. It rises linearly over `warmup` of the steps and falls to
            zero along half a cosine (one cycle; Smith and Topin 2017, arXiv 1708.07120).
        label_smoothing: share of the target spread over all classes.
        precision: bf16 (autocast) or fp32.
        device: a torch device; None: CUDA where it works, else the CPU.
        overwrite: replace `out` where it exists.
    """

    data: Path
    out: Path
    test: Path | None = None
    size: int | None = None
    arch: str = "resnet18-cifar"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2
    label_smoothing: float = 0.0
    augment: bool = True
    precision: str = "bf16"
    device: str | None = None
    seed: int = 1
    overwrite: bool = False


def check(config: TrainConfig) -> None:
    """Refuse what cannot work, before any work.

    Raises:
        UsageError: with every mistake in it.
        DiffcleanError: the output exists.
    """
    check_name(config.out)
    wrong = [
        f"{name} must be {what}, not {getattr(config, name)}"
        for name, what, holds in (
            ("epochs", "at least 1", config.epochs >= 1),
            ("batch_size", "at least 2 (batch normalisation)", config.batch_size >= 2),
            ("learning_rate", "above 0", config.learning_rate > 0),
            ("label_smoothing", "in [0, 1)", 0 <= config.label_smoothing < 1),
            ("warmup", "in [0, 1)", 0 <= config.warmup < 1),
            ("precision", "bf16 or fp32", config.precision in ("bf16", "fp32")),
            ("size", "at least 16", config.size is None or config.size >= 16),
        )
        if not holds
    ]
    if wrong:
        raise UsageError("; ".join(wrong) + ".")
    if config.out.exists() and not config.overwrite:
        raise DiffcleanError(f"{config.out} exists.", "Name another file with -o, or add --overwrite.")


def check_name(path: Path) -> None:
    """Refuse a file name that no classifier can be written to.

    Raises:
        UsageError: neither `.pt` nor `.safetensors`.
    """
    if path.suffix not in (".pt", ".safetensors"):
        raise UsageError(f"A classifier is a .pt or a .safetensors file, not {path.name!r}.", f"Try: -o {path.stem}.pt")
