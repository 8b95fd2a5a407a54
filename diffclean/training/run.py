"""What `train` and `distill` have in common: from data and a loss to a classifier on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import Classifier, build
from diffclean.classifiers.weight_files import reason_of
from diffclean.data.atomic import clean_temporaries
from diffclean.datasets.samples import Samples
from diffclean.errors import DiffcleanError
from diffclean.progress import NoProgress, Progress
from diffclean.results import KEPT_BACK, WHERE_MEASURED, table
from diffclean.training.distributed import World
from diffclean.training.log import TrainingLog
from diffclean.training.loop import Loop
from diffclean.training.loop_config import LoopConfig
from diffclean.training.objective import Objective, Supervised, measured
from diffclean.training.precision import resolved_precision
from diffclean.training.resume import StateFile
from diffclean.training.trainer import Trainer

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainMetrics:
    """What was measured of a training; shares are in [0, 1], and what was not measured is None.

    Attributes:
        teacher_accuracy: share of the labels that the teacher of a student agrees with.
        loss: mean training loss of the last epoch.
        train_accuracy: share of the labels that were hit in the last epoch, on augmented images while the weights
            still moved.
        train_agreement: in place of it where a student learns from no label, the share of the teacher's answers.
        validation_loss: on held-out images, in the epoch that was kept.
        validation_accuracy: the same.
        validation_agreement: the same.
        best_epoch: the epoch that was kept, where training could end early.
        test_accuracy: on the test set.
    """

    teacher_accuracy: float | None = field(default=None, metadata=WHERE_MEASURED)
    loss: float
    train_accuracy: float | None = field(default=None, metadata=WHERE_MEASURED)
    train_agreement: float | None = field(default=None, metadata=WHERE_MEASURED)
    validation_loss: float | None = field(default=None, metadata=WHERE_MEASURED)
    validation_accuracy: float | None = field(default=None, metadata=WHERE_MEASURED)
    validation_agreement: float | None = field(default=None, metadata=WHERE_MEASURED)
    best_epoch: int | None = field(default=None, metadata=WHERE_MEASURED)
    test_accuracy: float | None = field(default=None, metadata=WHERE_MEASURED)


@dataclass(frozen=True)
class TrainResult:
    """What a training run did.

    Attributes:
        path: the classifier.
        log: a JSON line an epoch.
        onnx: the classifier as ONNX, where that was asked for.
        metrics: see `TrainMetrics`.
        losses: mean training loss of each epoch.
        failed: key -> why that image could not be read; it was left out.
        seconds: wall clock of the training itself, in all processes that were needed.
        is_first: False in the processes of `torchrun` that only help: they should say nothing.
    """

    path: Path
    log: Path
    onnx: Path | None
    metrics: TrainMetrics
    losses: list[float]
    seconds: float
    failed: dict[str, str]
    is_first: bool = field(default=True, metadata=KEPT_BACK)

    def to_pandas(self) -> DataFrame:
        """A row an epoch, as the log has it. Needs pandas."""
        entries = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return table(entry for entry in entries if "epoch" in entry)


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        arch: as in `networks.build`.
        samples: to learn from.
        objective: the loss.
        test: to measure at the end.
        loop: how.
        identity: what decides the weights, beside what is here.
        record: what else the classifier's file should tell.
        metrics: what was measured before.
        out: the classifier.
        onnx: the same as ONNX; None: not asked for.
        overwrite: throw away a state of another run.
    """

    arch: str
    samples: Samples
    objective: Objective
    test: Samples | None
    loop: LoopConfig
    identity: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Mapping[str, float]
    out: Path
    onnx: Path | None
    overwrite: bool


def carry_out(job: Job, world: World, progress: Progress | None = None, stop: Event | None = None) -> TrainResult:
    """Train, or go on with what an earlier process began; measure; write.

    Args:
        job: what to do. The same job on the same machine gives the same weights, interrupted or not.
        world: the processes that do it together; only the first writes and tells of progress.
        progress: told of each image that was trained on.
        stop: set by someone who wants it to end.

    Raises:
        DiffcleanError: a run with other settings is begun there; the loss is no longer a number.
        Interrupted: `stop` was set; the same job goes on.
    """
    precision = resolved_precision(job.loop.precision, world.device)
    about = _about(job, world, precision)
    state = StateFile(job.out.with_suffix(".resume"), about, job.overwrite)
    progress = progress if progress is not None and world.is_first else NoProgress()
    with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
        torch.manual_seed(job.loop.seed)
        model = build(job.arch, len(job.samples.class_to_idx), *job.samples.pixels.statistics())
        model.to(world.device).to(memory_format=torch.channels_last)
        _try(model, job.arch, job.samples.pixels.shape, world)
        trainer = Trainer(model, job.samples, job.objective, job.loop, precision, world)
        loop = Loop(trainer, state, progress, stop or Event())
        loop.resume()
        log_path = job.out.with_suffix(".jsonl")
        lines = TrainingLog(log_path, about, loop.history, job.loop.tensorboard) if world.is_first else None
        try:
            result = loop.run(lines)
            assert isinstance(result, Classifier)
            metrics = _metrics(job, loop, result, precision, world)
            seconds = sum(entry["seconds"] for entry in loop.history)
            if lines is not None:
                lines.end({**metrics, "seconds": round(seconds, 1)})
        finally:
            if lines is not None:
                lines.close()
    if world.is_first:
        clean_temporaries(job.out.parent, below=False)
        _write(job, result, metrics, about)
        state.remove()
    losses = [entry["loss"] for entry in loop.history]
    failed = {**job.samples.failed, **(job.test.failed if job.test else {})}
    trained = TrainMetrics(**metrics)  # type: ignore[arg-type] # `best_epoch` is a whole number
    return TrainResult(job.out, log_path, job.onnx, trained, losses, seconds, failed, world.is_first)


@torch.no_grad()
def _try(model: Classifier, arch: str, size: tuple[int, int], world: World) -> None:
    """Refuse images that the network cannot take, before any time is spent on it."""
    try:
        model.eval()(torch.zeros(2, 3, *size, device=world.device))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DiffcleanError(
            f"{arch} cannot take images of {size[1]}x{size[0]} px: {reason_of(error)}",
            "Resize them to a side that it can, for example: `size` 224",
        ) from error


def _about(job: Job, world: World, precision: str) -> dict[str, Any]:
    """What decides the weights: the log's first line, and what a resumed run must have in common."""
    data = {"images": len(job.samples.keys), "variations": len(job.samples.pixels), "digest": job.samples.digest}
    size = list(job.samples.pixels.shape)
    machine = {"device": world.device.type, "processes": world.size, "precision": precision}
    return {
        **job.identity,
        "arch": job.arch,
        "loop": job.loop.identity(),
        "machine": machine,
        "data": {**data, "size": size, "class_to_idx": job.samples.class_to_idx},
    }


def _metrics(job: Job, loop: Loop, model: Classifier, precision: str, world: World) -> dict[str, float]:
    measure, last = job.objective.measure, loop.history[-1]
    metrics = {**job.metrics, "loss": last["loss"], f"train_{measure}": last[measure]}
    kept = last if job.loop.patience is None or loop.best is None else loop.history[loop.best["epoch"] - 1]
    metrics |= {name: value for name, value in kept.items() if name in ("validation_loss", f"validation_{measure}")}
    if job.loop.patience is not None:
        metrics["best_epoch"] = kept["epoch"]
    if job.test is not None:
        every = torch.arange(len(job.test.keys))
        metrics["test_accuracy"] = measured(model, job.test, every, Supervised(), world, precision).right
    return metrics


def _write(job: Job, model: Classifier, metrics: dict[str, float], about: dict[str, Any]) -> None:
    classes, shape = job.samples.class_to_idx, job.samples.pixels.shape
    figures = {**metrics, "images": len(job.samples.keys)}
    checkpoints.save(job.out, model, job.arch, classes, shape, figures, {**job.record, **about})
    if job.onnx is not None:
        from diffclean.export.classifier import onnx_from_classifier

        onnx_from_classifier(model, job.onnx, classes, shape)
