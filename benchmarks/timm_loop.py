"""The network of the fast recipe in timm's own training loop, for as many epochs, to compare the two.

    python benchmarks/timm_loop.py --train cifar10-train/train --test cifar10-test/test

The loop is the one of timm's training script, put together from timm's parts: its reader of folders, its loader and
augmentation, label smoothing, SGD with Nesterov's momentum, a cosine schedule with one epoch of warm-up, in steps. The
network begins as with the fast recipe, its first layer computed from the images, and computes in bfloat16. The rate is
that of timm's script for this batch; nothing was searched for.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from record import write_result
from timm.data import ImageDataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from diffclean.classifiers.networks import Classifier, begin_from, build, predict, unit_floats
from diffclean.training.recipes import FAST, RECIPES

_RATE_OF_256 = 0.1
_WEIGHT_DECAY = 5e-4
_SMALLEST_CROP = 0.7
"""Of the image: timm's own 0.08 is meant for photographs."""
_FIRST_LOOK = 2_000
"""So many images determine the normalisation and the first layer, about as many as `diffclean train` takes for it."""


def main() -> None:
    recipe = RECIPES[FAST]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="the training set")
    parser.add_argument("--test", type=Path, required=True, help="the test set")
    parser.add_argument("--epochs", type=int, default=recipe["epochs"])
    parser.add_argument("--batch", type=int, default=recipe["batch_size"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="timm_loop", help="the name of the result file")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    smoothing = recipe["label_smoothing"]
    began = time.monotonic()
    model, images = trained(options.train, options.epochs, options.batch, smoothing)
    seconds = time.monotonic() - began
    right = torch.cat([predict(model, pixels).argmax(1) == labels for pixels, labels in _pixels(options.test)])
    figures = {
        "seed": options.seed,
        "arch": recipe["arch"],
        "loop": {
            "epochs": options.epochs,
            "batch_size": options.batch,
            "optimizer": "sgd",
            "learning_rate": _rate(options.batch),
            "weight_decay": _WEIGHT_DECAY,
            "schedule": "cosine",
            "label_smoothing": smoothing,
            "smallest_crop": _SMALLEST_CROP,
        },
        "precision": "bf16",
        "images": images,
        "test_images": len(right),
        "epochs": options.epochs,
        "test_accuracy": right.float().mean().item(),
        "seconds": round(seconds, 1),
        "images_per_second": round(options.epochs * images / seconds, 1),
        "cores": len(os.sched_getaffinity(0)),
    }
    write_result(options.name, figures, f"{options.train.parent.name} and {options.test.parent.name}, all images")


def trained(folder: Path, epochs: int, batch: int, smoothing: float) -> tuple[Classifier, int]:
    """A classifier that timm's loop has trained, and from how many images."""
    data = ImageDataset(str(folder))
    loader = create_loader(
        data,
        (3, 32, 32),
        batch,
        is_training=True,
        scale=(_SMALLEST_CROP, 1.0),
        color_jitter=0.0,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        num_workers=1,
        device=torch.device("cpu"),
        use_prefetcher=False,
    )
    first = next(iter(_pixels(folder, _FIRST_LOOK)))[0]
    mean, std = (found.tolist() for found in (unit_floats(first).mean((0, 2, 3)), unit_floats(first).std((0, 2, 3))))
    model = build(RECIPES[FAST]["arch"], len(data.reader.class_to_idx), mean, std)
    begin_from(model, first)
    model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=_rate(batch), momentum=0.9, weight_decay=_WEIGHT_DECAY)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", epochs, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=len(loader)
    )
    loss_of, step = LabelSmoothingCrossEntropy(smoothing), 0
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            schedule.step_update(step)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}", flush=True)
    return model, len(data)


def _rate(batch: int) -> float:
    return _RATE_OF_256 * batch / 256


def _pixels(folder: Path, batch: int = 1_000) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of (N, 3, H, W) uint8 images and (N,) labels in the order of a fixed permutation."""
    images = ImageDataset(str(folder), transform=pil_to_tensor)
    return DataLoader(images, batch, shuffle=True, generator=torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
