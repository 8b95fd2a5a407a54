"""Bare weights, as training programs of all kinds save them, into a classifier; and what they do not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffclean.classifiers.networks import ARCHITECTURES, IMAGENET_MEAN, IMAGENET_STD, Classifier
from diffclean.data.classes import checked_classes
from diffclean.errors import DiffcleanError

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of R, G, B in [0, 1]."""

_PLACES = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
"""Where programs put the weights in a larger file."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DistributedDataParallel, torch.compile and wrappers put before each name."""


def find_state_dict(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The weights among what a file holds; None: there are none."""
    for candidate in (content, *(content.get(place) for place in _PLACES)):
        if isinstance(candidate, Mapping) and candidate and all(isinstance(v, Tensor) for v in candidate.values()):
            return {str(name): tensor for name, tensor in candidate.items()}
    return None


def load_into(model: Classifier, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Load weights into a classifier's network; those of a `Classifier` bring their normalisation.

    Args:
        model: takes them.
        state: as `find_state_dict` finds it.
        path: where they are from.
        what: the network in words, for the message.

    Raises:
        DiffcleanError: they are of another network, or for another number of classes.
    """
    whole = _without_prefixes(state, set(model.state_dict()))
    target: Any = model if {"mean", "std"} <= set(whole) else model.net
    state = whole if target is model else _without_prefixes(state, set(target.state_dict()))
    wanted = target.state_dict()
    problems = _problems(state, wanted)
    if problems:
        raise DiffcleanError(
            f"{path} does not fit {what}: {'; '.join(problems)}.",
            "Check `teacher_arch`, and `teacher_classes`: one name for each of its logits.",
        )
    target.load_state_dict(state)


def _without_prefixes(state: Mapping[str, Tensor], wanted: set[str]) -> Mapping[str, Tensor]:
    while not wanted & set(state):
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _problems(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    missing, unexpected = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(wanted[name].shape)} in the network"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    problems = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
    problems += [f"{len(unexpected)} are not of it, such as {unexpected[0]}"] if unexpected else []
    return problems + shapes[:3]


def usual_input(arch: str) -> tuple[Normalisation, tuple[int, int] | None]:
    """The normalisation that an architecture usually has, and its size where it takes no other."""
    if arch in ARCHITECTURES:
        return (IMAGENET_MEAN, IMAGENET_STD), None
    import timm

    usual = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    if usual is None:
        return (IMAGENET_MEAN, IMAGENET_STD), None
    _, height, width = usual.input_size
    return (tuple(usual.mean), tuple(usual.std)), (height, width) if usual.fixed_input_size else None


def read_classes(path: Path) -> dict[str, int]:
    """`class_to_idx` from a file: JSON (a list of names, or an object name -> index), or a name a line.

    Raises:
        DiffcleanError: it cannot be read, or names a class twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DiffcleanError(f"{path} cannot be read as a list of classes: {error}") from error
    try:
        stored = json.loads(text)
    except ValueError:
        stored = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(stored, list):
        if len(set(map(str, stored))) < len(stored):
            raise DiffcleanError(
                f"{path} names a class twice.", "Expected each class once, in the order of the logits."
            )
        stored = {str(name): index for index, name in enumerate(stored)}
    return checked_classes(stored)
