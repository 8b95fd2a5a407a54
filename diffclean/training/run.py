"""The part of the work that `train` and `distill` share: from data and a loss to a classifier on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import Classifier, begin_from, build, check_takes
from diffclean.data.atomic import clean_temporaries
from diffclean.datasets.samples import Samples
from diffclean.progress import NoProgress, Progress
from diffclean.results import KEPT_BACK, WHERE_MEASURED, table
from diffclean.training.distributed import World
from diffclean.training.log import TrainingLog
from diffclean.training.loop import Loop
from diffclean.training.loop_config import LoopConfig
from diffclean.training.objective import Objective, Supervised, measured
from diffclean.training.precision import resolved_precision
from diffclean.training.relabel import Relabelled
from diffclean.training.resume import StateFile
from diffclean.training.trainer import Trainer

if TYPE_CHECKING:
    from pandas import DataFrame

log = logging.getLogger(__name__)

_PIXELS_TO_BEGIN = 2_000_000
"""The number of pixels from which `begin_from` computes first weights."""


@dataclass(frozen=True, kw_only=True)
class TrainMetrics:
    """The measurements of a training. Shares are in [0, 1]; what was not measured is None.

    Attributes:
        teacher_accuracy: the share of labels that the teacher of a student agrees with.
        loss: the mean training loss of the last epoch.
        train_accuracy: the share of right labels in the last epoch, measured on augmented images while the weights
            still changed.
        train_agreement: for a student that learns without labels, the share of the teacher's answers in place of that.
        validation_loss: the loss on held-out images, in the epoch that was kept.
        validation_accuracy: the accuracy on held-out images, in that epoch.
        validation_agreement: the agreement on held-out images, in that epoch.
        best_epoch: the epoch that was kept, if training could end early.
        test_accuracy: the accuracy on the test set.
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
    """The result of a training run.

    Attributes:
        path: the file of the classifier.
        log: the log, which has a JSON line for each epoch.
        onnx: the classifier as ONNX, if that was asked for.
        metrics: the measurements, see `TrainMetrics`.
        losses: the mean training loss of each epoch.
        failed: the reason why an image could not be read and was left out, by key.
        seconds: the duration of the training itself, in all processes that were needed.
        is_first: False in the further processes of `torchrun`, which should print nothing.
        relabelled: what happened to the images on the list, if they got new labels.
    """

    path: Path
    log: Path
    onnx: Path | None
    metrics: TrainMetrics
    losses: list[float]
    seconds: float
    failed: dict[str, str]
    is_first: bool = field(default=True, metadata=KEPT_BACK)
    relabelled: Relabelled | None = field(default=None, metadata=WHERE_MEASURED)

    def to_pandas(self) -> DataFrame:
        """A table with a row for each epoch, as in the log. Needs pandas."""
        entries = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return table(entry for entry in entries if "epoch" in entry)


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        arch: the architecture, as in `networks.build`.
        samples: the training data.
        objective: the loss.
        test: the data to measure at the end.
        loop: the settings of the loop.
        identity: what determines the weights, apart from the other attributes.
        record: further entries for the classifier's file.
        metrics: measurements that were made before.
        out: the file of the classifier.
        onnx: the file of the classifier as ONNX; None if that was not asked for.
        overwrite: whether the state of another run may be discarded.
        relabelled: what happened to suspects that got new labels; None if that was not asked for.
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
    relabelled: Relabelled | None = None


def carry_out(job: Job, world: World, progress: Progress | None = None, stop: Event | None = None) -> TrainResult:
    """Train, or continue what an earlier process began; then measure and write.

    Args:
        job: what to do. The same job on the same machine gives the same weights, interrupted or not.
        world: the processes that work together; only the first one writes and reports progress.
        progress: is advanced for each image that was trained on.
        stop: set this event to stop the run.

    Raises:
        DiffcleanError: there is an unfinished run with other settings, or the loss is NaN or infinite.
        Interrupted: `stop` was set; the same job continues.
    """
    precision = resolved_precision(job.loop.precision, world.device)
    about = _about(job, world, precision)
    state = StateFile(job.out.with_suffix(".resume"), about, job.overwrite)
    progress = progress if progress is not None and world.is_first else NoProgress()
    with torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else []):
        torch.manual_seed(job.loop.seed)
        model = build(job.arch, len(job.samples.class_to_idx), *job.samples.pixels.statistics())
        begin_from(model, _first_images(job.samples))
        model.to(world.device).to(memory_format=torch.channels_last)
        check_takes(model, job.arch, job.samples.pixels.shape, world.device)
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
    return TrainResult(job.out, log_path, job.onnx, trained, losses, seconds, failed, world.is_first, job.relabelled)


def _first_images(samples: Samples) -> Tensor:
    """(N, 3, H, W) uint8, images at even distances in the training set."""
    height, width = samples.pixels.shape
    step = max(1, len(samples.pixels) * height * width // _PIXELS_TO_BEGIN)
    return next(iter(samples.pixels.batches([torch.arange(0, len(samples.pixels), step)])))


def _about(job: Job, world: World, precision: str) -> dict[str, Any]:
    """What determines the weights: the first line of the log, which must be the same in a resumed run."""
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
    record = {**job.record, **({"relabelled": asdict(job.relabelled)} if job.relabelled else {})}
    checkpoints.save(job.out, model, job.arch, classes, shape, figures, {**record, **about})
    if job.onnx is not None:
        from diffclean.export.classifier import onnx_from_classifier

        onnx_from_classifier(model, job.onnx, classes, shape)
