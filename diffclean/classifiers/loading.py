"""Opens classifiers in all forms: a file of diffclean, a bare state dict with its architecture, or ONNX."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffclean.classifiers import checkpoints
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import ARCHITECTURES, IMAGENET_MEAN, IMAGENET_STD, build, check_arch, shapes_of
from diffclean.classifiers.onnx_classifier import load_onnx
from diffclean.classifiers.state_dicts import (
    Normalisation,
    find_state_dict,
    fitted,
    load_fitted,
    read_classes,
    usual_input,
)
from diffclean.classifiers.weight_files import WAY_OUT, UnsafeFileError, listed, read_content, reason_of, split
from diffclean.errors import DiffcleanError, UsageError

log = logging.getLogger(__name__)

_LOOKED_AT = 32
"""The number of batches after which only every such batch is checked on a GPU."""


@dataclass(frozen=True)
class LoadedClassifier:
    """An open classifier: a teacher, or one that is measured.

    Attributes:
        network: (B, 3, H, W) float in [0, 1], of `size` -> (B, C) logits.
        class_to_idx: the index of the logit by class name.
        size: (height, width) of its images; None if it takes any.
        arch: the architecture, as in `networks.build`; None if it is not known.
        sha256: the hash of its file.
        sketch: a sketch of the images that it was trained on (`samples.sketch_of`); empty if it is not known.
        name: its file, for messages.
        classes_assumed: whether its class order was assumed to be that of the data.
        role: what messages call it, as in `ClassifierFile`.
    """

    network: Callable[[Tensor], Tensor]
    class_to_idx: dict[str, int]
    size: tuple[int, int] | None
    arch: str | None
    sha256: str
    sketch: list[str] = field(default_factory=list)
    name: str = "The classifier"
    classes_assumed: bool = False
    role: str = "classifier"
    _calls: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] of any size -> (B, C) float32.

        The values are checked. On a GPU, which would have to be waited for, only those of the first batches and of some
        later ones are checked.

        Raises:
            DiffcleanError: the classifier has another number of classes, cannot take that size, or its answers are not
                finite or are probabilities.
        """
        try:
            if self.size is not None and images.shape[2:] != self.size:
                # This resizes like `pixels.resized`. Bicubic interpolation overshoots, which no image does.
                images = F.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
            logits = self.network(images).float()
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError, ValueError) as error:  # networks raise these for a size they cannot take
            raise DiffcleanError(
                f"The {self.role} fails on images of {images.shape[3]}x{images.shape[2]} px: {reason_of(error)}",
                f"Give the image size that it was made for: `{self.role}_size` 224",
            ) from error
        if logits.shape != (len(images), len(self.class_to_idx)):
            raise DiffcleanError(
                f"The {self.role}'s answer to {len(images)} images has the shape {tuple(logits.shape)}; expected "
                f"({len(images)}, {len(self.class_to_idx)}), one logit for each class.",
                f"List its classes in the order of its logits: `{self.role}_classes` FILE",
            )
        number = next(self._calls)
        if logits.device.type == "cpu" or number < _LOOKED_AT or number % _LOOKED_AT == 0:
            check_answers(logits, self.name, self.role)
        return logits


def check_answers(logits: Tensor, name: str, role: str = "classifier") -> None:
    """Refuse answers from which no figure can be computed.

    Args:
        logits: (B, C).
        name: the name of the classifier.
        role: what the hint calls it, as in `ClassifierFile`.

    Raises:
        DiffcleanError: some answers are not finite, or all are probabilities, which a softmax would make nearly equal.
    """
    finite = logits.isfinite().all(1)
    sums_to_one = (logits.sum(1) - 1).abs() < 1e-3
    wrong, probabilities = torch.stack(
        [(~finite).sum(), (sums_to_one & (logits >= 0).all(1)).all() & (logits.shape[1] > 1)]
    ).tolist()
    if wrong:
        raise DiffcleanError(
            f"{name} answers {wrong} of {len(logits)} images with values that are not finite (NaN or infinite), from "
            "which no figure can be computed.",
            f"Check its normalisation (`{role}_mean`, `{role}_std`). If it overflows in half precision, `distill` "
            "takes --precision fp32.",
        )
    if probabilities and len(logits):
        raise DiffcleanError(
            f"{name} answers with probabilities (they are not negative and sum to 1), but logits are needed, to which "
            "the temperature is applied.",
            "Export or save it without the last softmax.",
        )


def load(config: ClassifierFile, data_classes: Mapping[str, int], device: torch.device) -> LoadedClassifier:
    """Read a classifier. Nothing in its file is executed.

    If the file does not state its classes and `config` does not either, those of the data are assumed, in their order.
    If the normalisation is not stated, it is that of timm for the architecture, or else that of ImageNet.

    Args:
        config: the file, and what it does not say.
        data_classes: the classes of the data that the classifier is used on.
        device: the device that it runs on.

    Raises:
        UsageError: an option is missing, or contradicts the file.
        UnsafeFileError: the file could only be read by trusting it.
        DiffcleanError: the file is missing, damaged, or not a classifier.
    """
    if not config.path.is_file():
        raise DiffcleanError(f"There is no file {config.path}.", "Train one: diffclean train DATA -o t.pt")
    with config.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    is_onnx = config.path.suffix.lower() == ".onnx"
    read = (_from_onnx if is_onnx else _from_weights)(config, data_classes, device, sha256)
    return replace(read, name=str(config.path), role=config.role)


def _from_weights(
    config: ClassifierFile, data_classes: Mapping[str, int], device: torch.device, sha256: str
) -> LoadedClassifier:
    try:
        content = read_content(config.path)
    except UnsafeFileError as error:
        raise UnsafeFileError(error.message, WAY_OUT) from error
    if content.get("format") == checkpoints.FORMAT:
        _refuse_options(config)
        read = checkpoints.checkpoint_from(config.path, *split(content), device)
        known = read.training.get("sketch")
        sketch = [str(sha256) for sha256 in known] if isinstance(known, list) else []
        return LoadedClassifier(_still(read.model), read.class_to_idx, read.size, read.arch, sha256, sketch)
    return _from_state_dict(config, content, data_classes, device, sha256)


def _from_onnx(
    config: ClassifierFile, data_classes: Mapping[str, int], device: torch.device, sha256: str
) -> LoadedClassifier:
    read = load_onnx(config.path, device)
    if read.class_to_idx is not None:  # written by us: the normalisation is inside
        _refuse_options(config)
        return LoadedClassifier(read.logits, read.class_to_idx, read.size, None, sha256)
    also = {"arch": config.arch is not None, "size": bool(config.size and read.size)}
    if given := [f"`{config.role}_{name}`" for name, is_given in also.items() if is_given]:
        raise UsageError(f"{config.path} states this itself.", f"Leave out {', '.join(given)}.")
    mean, std = _normalisation(config, (IMAGENET_MEAN, IMAGENET_STD))
    shift, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))

    def network(images: Tensor) -> Tensor:
        return read.logits((images - shift) / scale)

    size = read.size or _square(config.size)
    classes, assumed = _classes(config, data_classes), config.classes is None
    return LoadedClassifier(network, classes, size, None, sha256, classes_assumed=assumed)


def _from_state_dict(
    config: ClassifierFile,
    content: Mapping[str, Any],
    data_classes: Mapping[str, int],
    device: torch.device,
    sha256: str,
) -> LoadedClassifier:
    table = find_state_dict(content)
    if table is None:
        raise DiffcleanError(f"{config.path} holds no weights (it holds {listed(content)}).", WAY_OUT)
    if config.arch is None:
        raise UsageError(
            f"{config.path} holds bare weights and does not say which network they belong to.",
            f"Name the network: `{config.role}_arch` NAME (one of timm's, or "
            f"{', '.join(ARCHITECTURES)}), and its classes: `{config.role}_classes` FILE",
        )
    check_arch(config.arch)
    classes = _classes(config, data_classes)
    usual, fixed = usual_input(config.arch)
    what = f"{config.arch} with {len(classes)} classes"
    state = fitted(table, shapes_of(config.arch, len(classes)), config.path, what, config.role)
    model = build(config.arch, len(classes), *_normalisation(config, usual))
    load_fitted(model, state, config.path)
    for name, given, held in (("mean", config.mean, model.mean), ("std", config.std, model.std)):
        if given is not None and not torch.allclose(held.flatten(), torch.tensor(given)):
            raise UsageError(f"{config.path} holds its own {name}.", f"Leave out `{config.role}_{name}`.")
    model.to(device).to(memory_format=torch.channels_last)
    size, assumed = _square(config.size) or fixed, config.classes is None
    return LoadedClassifier(_still(model), classes, size, config.arch, sha256, classes_assumed=assumed)


def _normalisation(config: ClassifierFile, usual: Normalisation) -> Normalisation:
    mean, std = config.mean or usual[0], config.std or usual[1]
    if config.mean is None or config.std is None:
        log.info(
            "The %s is assumed to normalise with mean %s and std %s (`%s_mean`, `%s_std`).",
            config.role, mean, std, config.role, config.role,
        )  # fmt: skip
    return mean, std


def _classes(config: ClassifierFile, data_classes: Mapping[str, int]) -> dict[str, int]:
    if config.classes is not None:
        return read_classes(config.classes)
    if not data_classes:
        raise UsageError(
            f"Neither {config.path} nor the data says what the {config.role}'s classes are.",
            f"List them in the order of its logits: `{config.role}_classes` FILE",
        )
    log.info(
        "The %s's logits are assumed to be in the class order of the data (`%s_classes` sets another).",
        config.role, config.role,
    )  # fmt: skip
    return dict(data_classes)


def _refuse_options(config: ClassifierFile) -> None:
    """Refuse options about what the file states itself."""
    names = ("arch", "classes", "mean", "std", "size")
    given = [f"`{config.role}_{name}`" for name in names if getattr(config, name) is not None]
    if given:
        raise UsageError(f"{config.path} states all of this itself.", f"Leave out {', '.join(given)}.")


def _still(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def _square(side: int | None) -> tuple[int, int] | None:
    return None if side is None else (side, side)
