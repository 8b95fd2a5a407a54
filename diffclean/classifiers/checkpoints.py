"""Reads and writes classifier files, which hold the weights and everything needed to use them. No code in them is run.

`.pt` is torch's format with plain containers and tensors only; `.safetensors` holds the tensors, and the rest as JSON.
"""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from diffclean import __version__
from diffclean.classifiers.checks import check_name
from diffclean.classifiers.networks import Classifier, build, shapes_of
from diffclean.classifiers.weight_files import listed, read_weights, reason_of
from diffclean.data.atomic import make_folders, write_whole
from diffclean.data.classes import checked_classes
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_finite

FORMAT = "diffclean-classifier"
FORMAT_VERSION = 1
LARGEST_SIDE = 2048
"""The largest side of the images that a file may declare, in pixels: batches of hundreds of them are in memory."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained classifier.

    Attributes:
        model: the network in evaluation mode.
        arch: the architecture, as in `networks.build`.
        class_to_idx: the index of the logit by class name.
        size: (height, width) of the images that it was trained on.
        metrics: what training measured.
        versions: the versions of the programs that wrote the file.
        training: how it was trained: settings, data, loss.
    """

    model: Classifier
    arch: str
    class_to_idx: dict[str, int]
    size: tuple[int, int]
    metrics: dict[str, Any]
    versions: dict[str, str]
    training: dict[str, Any] = field(default_factory=dict)


def save(
    path: Path,
    model: Classifier,
    arch: str,
    class_to_idx: Mapping[str, int],
    size: tuple[int, int],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a classifier; the file is written whole or not at all.

    Args:
        path: a path that ends in `.pt` or `.safetensors`.
        model: the classifier, whose weights and normalisation are written in float32 as they are.
        arch: the architecture, as in `networks.build`.
        class_to_idx: the index of the logit by class name.
        size: (height, width) of the images that it was trained on.
        metrics: measurements that JSON can express.
        training: how it was trained, as far as JSON can express it.

    Raises:
        UsageError: the file name ends differently.
        WriteError: the file cannot be written.
    """
    check_name(path)
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "arch": arch,
        "class_to_idx": dict(class_to_idx),
        "size": list(size),
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "metrics": dict(metrics),
        "training": json.loads(json.dumps(dict(training or {}), default=str)),
        "versions": {"diffclean": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if path.suffix == ".pt":
        content = io.BytesIO()
        torch.save({**about, "state_dict": state}, content)
        data = content.getvalue()
    else:
        from safetensors.torch import save as safetensors_of

        data = safetensors_of(state, metadata={"diffclean": json.dumps(about)})
    make_folders(path.parent)
    write_whole(path, data)


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a classifier that `save` wrote. Nothing in the file is executed.

    Raises:
        DiffcleanError: the file does not exist, is damaged, could only be read by running code, or is something else.
    """
    if not path.is_file():
        raise DiffcleanError(f"There is no file {path}.", "Train one: diffclean train DATA -o t.pt")
    about, state = read_weights(path)
    if about.get("format") != FORMAT:
        raise DiffcleanError(
            f"{path} is not a classifier of diffclean (it holds {listed(about or state)}).",
            "A bare state dict lacks the classes and the normalisation: build it with "
            "diffclean.classifiers.networks.build and write it with diffclean.classifiers.checkpoints.save.",
        )
    return checkpoint_from(path, about, state, device)


def checkpoint_from(
    path: Path, about: Mapping[str, Any], state: Mapping[str, Any], device: torch.device | str = "cpu"
) -> Checkpoint:
    """The classifier in the content that `read_weights` found in a file of diffclean.

    Raises:
        DiffcleanError: the file has another format version, or its parts do not fit together.
    """
    if about.get("format_version") != FORMAT_VERSION:
        found = about.get("format_version")
        raise DiffcleanError(f"{path} has format {found}; this diffclean reads {FORMAT_VERSION}.")
    try:
        classes = checked_classes(about["class_to_idx"])
        check_whole(state, shapes_of(about["arch"], len(classes)))
        model = build(about["arch"], len(classes), about["mean"], about["std"])
        model.load_state_dict(state)
        height, width = map(int, about["size"])
        if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
            raise ValueError(f"its images would have {width:.9g}x{height:.9g} pixels")
        metrics, versions = dict(about["metrics"]), dict(about["versions"])
        training = dict(about.get("training", {}))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise DiffcleanError(f"{path} is damaged: its parts do not fit together ({reason_of(error)}).") from error
    check_finite(path, model.state_dict())
    model.to(device).to(memory_format=torch.channels_last).eval()
    return Checkpoint(model, about["arch"], classes, (height, width), metrics, versions, training)


def check_whole(state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
    """Compare weights with the network that they are said to belong to, before the network is built.

    Raises:
        ValueError: they belong to another network.
    """
    different = sorted(set(state) ^ set(shapes))
    different += [name for name, shape in shapes.items() if name in state and state[name].shape != shape]
    if different:
        raise ValueError(f"{len(different)} of its tensors are not those of the network, such as {different[0]}")
