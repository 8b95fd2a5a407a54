"""Supervised training of a classifier: the teacher, and the reference classifiers that measurements need."""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from diffclean.errors import DiffcleanError, Interrupted
from diffclean.progress import NoProgress, Progress
from diffclean.training import checkpoints, datasets
from diffclean.training.augment import crop_and_flip
from diffclean.training.classifiers import Classifier, build, check_arch, pick_device, predict, unit_floats
from diffclean.training.train_config import TrainConfig, check

log = logging.getLogger(__name__)

_CHECK_EVERY = 50
"""Steps between two looks at the loss: each look waits for the GPU."""


@dataclass(frozen=True)
class TrainResult:
    """What `train` did.

    Attributes:
        path: the checkpoint.
        log_path: a JSON line an epoch.
        metrics: loss and train_accuracy of the last epoch (on augmented images, while the weights still moved), and
            test_accuracy where a test set was given; accuracies in [0, 1].
        losses: mean training loss of each epoch.
        failed: key -> why that image could not be read; it was left out.
        seconds: wall clock of the training itself.
    """

    path: Path
    log_path: Path
    metrics: dict[str, float]
    losses: list[float]
    failed: dict[str, str]
    seconds: float


def train(config: TrainConfig, progress: Progress | None = None, stop: Event | None = None) -> TrainResult:
    """Train a classifier and write it. The same configuration, data and machine give the same weights.

    Args:
        config: what to train on what.
        progress: told of each image that was read or trained on.
        stop: set by someone who wants it to end.

    Raises:
        UsageError: the configuration makes no sense.
        DiffcleanError: the data cannot be used, the output exists, or the loss is no longer a number.
        Interrupted: `stop` was set; no classifier is written.
    """
    check(config)
    check_arch(config.arch)
    progress = progress or NoProgress()
    device = pick_device(config.device)
    size = (config.size, config.size) if config.size else None
    data = datasets.load(config.data, size, progress=progress)
    if len(data.class_to_idx) < 2 or len(data.images) < 2:
        raise DiffcleanError(f"{config.data} has {len(data.class_to_idx)} class(es) and {len(data.images)} image(s).")
    shape = (int(data.images.shape[2]), int(data.images.shape[3]))
    test = datasets.load(config.test, shape, data.class_to_idx, progress=progress) if config.test else None
    mean, std = channel_statistics(data.images)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        model = build(config.arch, len(data.class_to_idx), mean, std)
        model.to(device).to(memory_format=torch.channels_last)
        started = time.monotonic()
        log_path = config.out.with_suffix(".jsonl")
        config.out.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("w", encoding="utf-8") as lines:
            _say(lines, {"config": asdict(config), "images": len(data.images), "classes": len(data.class_to_idx)})
            history = _fit(model, data, config, device, progress, lines, stop or Event())
            metrics = {"loss": history[-1]["loss"], "train_accuracy": history[-1]["accuracy"]}
            if test is not None:
                guesses = predict(model, test.images, bf16=config.precision == "bf16").argmax(1)
                metrics["test_accuracy"] = (guesses == test.labels).float().mean().item()
            seconds = time.monotonic() - started
            _say(lines, {"done": True, **metrics, "seconds": round(seconds, 1)})
    checkpoints.save(config.out, model, config.arch, data.class_to_idx, shape, {**metrics, "images": len(data.images)})
    failed = {**data.failed, **(test.failed if test else {})}
    return TrainResult(config.out, log_path, metrics, [e["loss"] for e in history], failed, seconds)


def _fit(
    model: Classifier,
    data: datasets.LabelledImages,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
    lines: Any,
    stop: Event,
) -> list[dict[str, float]]:
    """Run all epochs; returns loss and accuracy of each."""
    generator = torch.Generator().manual_seed(config.seed)
    count = len(data.images)
    batch = min(config.batch_size, count)
    steps = count // batch  # the few images left over come in another epoch's order
    optimizer = torch.optim.SGD(
        model.parameters(),
        config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
        foreach=True,
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    history: list[dict[str, float]] = []
    progress.begin("Training", config.epochs * steps * batch)
    for epoch in range(config.epochs):
        model.train()
        started = time.monotonic()
        order = torch.randperm(count, generator=generator)[: steps * batch]
        loss_sum, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        for step, chosen in enumerate(order.split(batch)):
            rate = one_cycle((epoch * steps + step) / (config.epochs * steps), config.warmup) * config.learning_rate
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = data.images[chosen]
            images = crop_and_flip(images, generator) if config.augment else images
            labels = data.labels[chosen].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                logits = model(unit_floats(images.to(device)))
                loss = criterion(logits, labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == labels).sum()
            if stop.is_set():
                raise Interrupted("Interrupted.", "No classifier was written; the same command starts over.")
            if (step + 1) % _CHECK_EVERY == 0 or step + 1 == steps:
                seen = loss_sum.item() / (step + 1)
                if not math.isfinite(seen):
                    raise DiffcleanError(
                        f"The loss became {seen} in epoch {epoch + 1}, step {step + 1}.",
                        f"Try a smaller --learning-rate (it is {config.learning_rate:g}), or --precision fp32.",
                    )
                progress.advance(batch * ((step % _CHECK_EVERY) + 1), loss=seen)
        entry = {"loss": loss_sum.item() / steps, "accuracy": correct.item() / (steps * batch)}
        history.append(entry)
        seconds = round(time.monotonic() - started, 2)
        _say(lines, {"epoch": epoch + 1, **entry, "learning_rate": rate, "seconds": seconds})
        log.info("Epoch %d: loss %.3f, accuracy %.3f.", epoch + 1, entry["loss"], entry["accuracy"])
    progress.end()
    return history


def one_cycle(done: float, warmup: float) -> float:
    """Share of the peak learning rate after `done` in [0, 1) of the run: linear rise, then half a cosine to zero."""
    if done < warmup:
        return max(done / warmup, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G, B in [0, 1] over (N, 3, H, W) uint8; std at least 1/255 (flat images)."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(3):
        # A histogram holds the exact answer and needs no float copy of the data set.
        share = (
            torch.bincount(images[:, channel].reshape(-1).int(), minlength=256).double() / images[:, channel].numel()
        )
        mean = float((share * levels).sum())
        means.append(mean)
        stds.append(max(float((share * (levels - mean) ** 2).sum()) ** 0.5, 1 / 255))
    return tuple(means), tuple(stds)


def _say(lines: Any, entry: dict[str, Any]) -> None:
    lines.write(json.dumps(entry, default=str) + "\n")
    lines.flush()
