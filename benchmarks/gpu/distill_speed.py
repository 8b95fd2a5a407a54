"""Compare the speed of student training: the teacher asked online, its targets cached, and timm's own loop.

    python benchmarks/gpu/distill_speed.py --images FOLDER_WITH_CLASSES --work WORK --arch resnet18 --batch 128

One model, batch and precision for all, in turns, several times over; ratios are medians over the turns.
on line: `distill` as it is; the teacher, of the same architecture with random weights, answers to every batch;
cached: `distill --targets averaged`: targets are worked out once (with one variation an image, they are the same ones);
train: `train`, without a teacher: the labels alone;
timm: the training step of timm's train.py with timm's loader, optimiser and schedule, on the labels alone: images are
read and cropped by worker processes, one a core;
timm in memory: the same step, on batches that lie on the device: what it takes to train and nothing else.

The rate is that of the epochs after the first; reading the data set into memory and working out targets is not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_harness import add_arguments, measured
from robustness_data import subset
from torch import Tensor, nn

from diffclean.classifiers import checkpoints
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import IMAGENET_MEAN, IMAGENET_STD, build, pick_device
from diffclean.data.decode import decode
from diffclean.data.folder import ImageFolder
from diffclean.environment import usable_cores
from diffclean.training.distill import distill
from diffclean.training.distill_config import DistillConfig
from diffclean.training.loop_config import LoopConfig
from diffclean.training.precision import autocast, resolved_precision
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig


def main() -> int:
    options = arguments()
    device = pick_device()
    options.precision = resolved_precision(options.precision, device)
    options.work.mkdir(parents=True, exist_ok=True)
    data = subset(options.images, options.count, options.work)
    side, teacher = prepared(options, data)
    settings: dict[str, Any] = {"unit": "images per second", "device": device.type}
    settings |= {name: getattr(options, name) for name in ("arch", "batch", "precision", "epochs")}
    settings |= {"images": len(ImageFolder(data).items()), "side": side}
    student = options.work / "student.pt"
    ways: dict[str, Callable[[], float]] = {
        "on line": lambda: ours(options, data, student, teacher, "sampled"),
        "cached": lambda: ours(options, data, student, teacher, "averaged"),
        "train": lambda: ours(options, data, student, None, ""),
        "timm": lambda: timm_rate(options, device, timm_loader(options, data, side, device), options.epochs),
        "timm in memory": lambda: timm_rate(options, device, in_memory(options, data, side, device), options.epochs),
    }
    plan = {f"round {number}: {name}": way for number in range(options.rounds) for name, way in ways.items()}
    return measured(options, settings, plan, partial(in_rounds, list(ways)), options.data)


def in_rounds(ways: list[str], made: dict[str, float]) -> dict[str, Any]:
    """Rates by round, for the rounds that are whole; medians, and ratios to timm within a round."""
    numbers = dict.fromkeys(name.partition(":")[0] for name in made)
    rounds = [{way: made[f"{n}: {way}"] for way in ways if f"{n}: {way}" in made} for n in numbers]
    rounds = [each for each in rounds if len(each) == len(ways)]
    if not rounds:
        return {"median": {}, "over_timm": {}, "rounds": []}
    return {
        "median": {way: statistics.median(each[way] for each in rounds) for way in ways},
        "over_timm": {way: statistics.median(each[way] / each["timm"] for each in rounds) for way in ways},
        "rounds": rounds,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, required=True, help="a folder with one folder per class; all images have one size"
    )
    add_arguments(parser, "distill_speed")
    parser.add_argument("--count", type=int, default=0, help="the number of images, evenly over the classes; 0: all")
    parser.add_argument("--arch", default="resnet18", help="a model of timm")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3, help="the epochs per turn; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--precision", choices=["bf16", "fp16", "fp32"], help="the default is the fastest on this machine"
    )
    parser.add_argument(
        "--workers", type=int, default=max(1, int(usable_cores())), help="the number of workers of timm's loader"
    )
    parser.add_argument("--data", default="CIFAR-10 training images (JPEG-coded copies), 32 px")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs: at least 2, since the first is not counted")
    return options


def prepared(options: argparse.Namespace, data: Path) -> tuple[int, Path]:
    """The side of the images in px, and a teacher that knows nothing: its speed does not depend on that."""
    source = ImageFolder(data)
    height, width = decode(source.read(source.items()[0])).shape[:2]
    teacher = options.work / "teacher.pt"
    torch.manual_seed(0)
    model = build(options.arch, len(source.class_to_idx))
    checkpoints.save(teacher, model, options.arch, source.class_to_idx, (height, width), {})
    return height, teacher


def ours(options: argparse.Namespace, data: Path, out: Path, teacher: Path | None, targets: str) -> float:
    """Images per second of `distill` or, without a teacher, of `train`."""
    loop = LoopConfig(
        epochs=options.epochs,
        batch_size=options.batch,
        precision=options.precision,
        tensorboard=False,
    )
    if teacher is None:
        result = train(TrainConfig(data, out, arch=options.arch, loop=loop, overwrite=True))
    else:
        result = distill(
            DistillConfig(ClassifierFile(teacher), data, out, options.arch, targets=targets, loop=loop, overwrite=True)
        )
    lines = [json.loads(line) for line in result.log.read_text().splitlines()]
    return statistics.mean([line["images_per_second"] for line in lines if "images_per_second" in line][1:])


def timm_loader(options: argparse.Namespace, data: Path, side: int, device: torch.device) -> Any:
    """Timm's own: crops at random, mirrors, normalises."""
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", root=str(data), is_training=True),
        input_size=(3, side, side),
        batch_size=options.batch,
        is_training=True,
        color_jitter=0.0,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        num_workers=options.workers,
        device=device,
        persistent_workers=True,
    )


def in_memory(options: argparse.Namespace, data: Path, side: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """As many batches as an epoch has, a few different ones that lie on the device."""
    classes, steps = len(ImageFolder(data).class_to_idx), len(ImageFolder(data).items()) // options.batch
    generator = torch.Generator().manual_seed(0)
    made = [
        (
            torch.randn(options.batch, 3, side, side, generator=generator).to(device),
            torch.randint(classes, (options.batch,), generator=generator).to(device),
        )
        for _ in range(min(4, steps))
    ]
    return [made[step % len(made)] for step in range(steps)]


def timm_rate(
    options: argparse.Namespace, device: torch.device, loader: Iterable[tuple[Tensor, Tensor]], epochs: int
) -> float:
    """Images per second of the step in timm's train.py (1.0), with its `--amp --channels-last`."""
    import timm
    from timm import utils
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    classes = len(ImageFolder(options.images).class_to_idx)
    model = timm.create_model(options.arch, num_classes=classes).to(device)
    model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs)
    loss_of = nn.CrossEntropyLoss().to(device)
    scaler = utils.NativeScaler() if options.precision == "fp16" else None
    losses, rates = utils.AverageMeter(), []
    for epoch in range(epochs):
        model.train()
        seen, started = 0, time.monotonic()
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with autocast(device, options.precision):
                loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            if scaler is not None:
                scaler(loss, optimizer, parameters=model.parameters())
            else:
                loss.backward()
                optimizer.step()
            seen += len(images)
        losses.update(loss.item(), seen)  # waits for the GPU
        rates.append(seen / (time.monotonic() - started))
        schedule.step(epoch + 1)
    return statistics.mean(rates[1:])


if __name__ == "__main__":
    sys.exit(main())
