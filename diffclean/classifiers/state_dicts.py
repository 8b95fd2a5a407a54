"""Bare weights, as training programs of all kinds save them, into a classifier; and what they do not say."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffclean.classifiers.networks import ARCHITECTURES, IMAGENET_MEAN, IMAGENET_STD, Classifier
from diffclean.data.classes import checked_classes
from diffclean.data.json_file import json_of
from diffclean.errors import DiffcleanError
from diffclean.families.bounds import check_finite

log = logging.getLogger(__name__)

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of R, G, B in [0, 1]."""

_PLACES = ("state_dict", "model_state_dict", "model", "net", "netC", "weights", "params")
"""Where programs put the weights in a larger file."""
_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "swa_state_dict")
"""Where they put an average of the weights over the training. Taken where there are no others."""
_COUNTERS = ("n_averaged", "total_ops", "total_params")
"""Numbers that torch's AveragedModel and thop's profiler leave among the weights."""
_CLASSES_CHARACTERS = 4 * 2**20
_TOLERATED = "num_batches_tracked"
"""Older programs do not save it; nothing that a classifier answers depends on it."""


@dataclass(frozen=True)
class Table:
    """A table of weights in a file.

    Attributes:
        place: its name in the file; empty: it is the file.
        tensors: name -> tensor.
        others: names of further tables of weights in the file, which were not taken.
    """

    place: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()


def find_state_dict(content: Mapping[str, Any]) -> Table | None:
    """The weights among what a file holds; None: there are none."""
    tables = {place: found for place in (*_PLACES, *_AVERAGES) if (found := _tensors_at(content.get(place)))}
    if tables:
        place, *others = tables
        return Table(place, tables[place], tuple(others))
    if tensors := _tensors_at(content, deeper=False):
        return Table("", tensors)
    named = {str(place): found for place, value in content.items() if (found := _tensors_at(value))}
    return Table(*named.popitem()) if len(named) == 1 else None  # under a name of one's own


def _tensors_at(value: Any, deeper: bool = True) -> dict[str, Tensor]:
    """The tensors in a table, or in a table of weights within it; empty: there are none."""
    if not isinstance(value, Mapping):
        return {}
    found = {str(name): tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    if found or not deeper:
        return found
    inner = (_tensors_at(value.get(place), deeper=False) for place in (*_PLACES, *_AVERAGES))
    return next((tensors for tensors in inner if tensors), {})


def fitted(
    table: Table, shapes: Mapping[str, torch.Size], path: Path, what: str, role: str = "classifier"
) -> dict[str, Tensor]:
    """The weights of a table under the names of a `Classifier`; nothing of the network is made for that.

    Wrappers put their own name before each weight's, and other tensors may lie beside: those of a loss, of a second
    network. The weights under one such name that fit are taken, the others are passed over, and that is said. A
    network without its normalisation lacks `mean` and `std` in what is returned.

    Args:
        table: as `find_state_dict` finds it.
        shapes: of a whole `Classifier`, `networks.shapes_of`.
        path: where the weights are from.
        what: the network in words, for the message.
        role: as in `ClassifierFile`, for the message.

    Raises:
        DiffcleanError: they are of another network, or for another number of classes.
    """
    state = {name: tensor for name, tensor in table.tensors.items() if name.rpartition(".")[2] not in _COUNTERS}
    bare = {name.removeprefix("net."): shape for name, shape in shapes.items() if name.startswith("net.")}
    for wanted, before in ((shapes, ""), (bare, "net.")):
        prefix, *rivals = _prefixes(state, wanted)
        own = [name for name in state if name.startswith(prefix) and not name.startswith(tuple(rivals))]
        problems = _problems({name.removeprefix(prefix): state[name] for name in own}, wanted)
        if not problems:
            _tell(table, path, prefix, [name for name in state if name not in set(own)], rivals)
            return {f"{before}{name.removeprefix(prefix)}": state[name] for name in own}
    raise DiffcleanError(
        f"{path} does not fit {what}: {'; '.join(problems)}.",
        f"Check `{role}_arch`, and `{role}_classes`: one name for each of its logits.",
    )


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> list[str]:
    """What stands before the names in a table, the best first, then others under which as many weights fit."""
    needed = [name for name in wanted if not name.endswith(_TOLERATED)]
    found = {name.removesuffix(anchor) for anchor in needed[:3] for name in state if name.endswith(f".{anchor}")}
    order = sorted(found, key=lambda prefix: (len(prefix), prefix))
    counts = {prefix: sum(f"{prefix}{name}" in state for name in needed) for prefix in ("", *order)}
    best = max(counts.values())
    return [prefix for prefix, count in counts.items() if count == best]


def _tell(table: Table, path: Path, prefix: str, passed: list[str], rivals: list[str]) -> None:
    """Say what was taken where a file holds more than one network's weights."""
    if table.others:
        log.warning(
            "%s holds several tables of weights; %s is taken, not %s. For another: "
            "torch.save(torch.load(FILE, weights_only=True)['%s'], 'weights.pt').",
            path, table.place, ", ".join(table.others), table.others[0],
        )  # fmt: skip
    if rivals:
        log.warning("%s holds several networks; the weights under '%s' are taken, not '%s'.", path, prefix, rivals[0])
    if passed:
        log.info("%s holds %d tensors beside the network's, such as %s; they are passed over.",
                 path, len(passed), passed[0])  # fmt: skip


def _problems(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> list[str]:
    missing = sorted(name for name in set(wanted) - set(state) if not name.endswith(_TOLERATED))
    unexpected = sorted(set(state) - set(wanted))
    shapes = [
        f"{name} is {tuple(state[name].shape)} in the file and {tuple(shape)} in the network"
        for name, shape in wanted.items()
        if name in state and state[name].shape != shape
    ]
    problems = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
    problems += [f"{len(unexpected)} are not of it, such as {unexpected[0]}"] if unexpected else []
    return problems + shapes[:3]


def load_fitted(model: Classifier, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that fit into a classifier; what may be missing keeps its value.

    Raises:
        DiffcleanError: a weight is not finite.
    """
    own = model.state_dict()
    for name, tensor in state.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise DiffcleanError(
                f"{path} is refused: its tensor {name} holds whole numbers ({tensor.dtype}) in place of weights.",
                "Quantised weights mean nothing without their scales: save them in floating point.",
            )
    model.load_state_dict({**own, **state})
    check_finite(path, model.state_dict())


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
        if not path.is_file():
            raise OSError("it is no plain file")
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_CLASSES_CHARACTERS + 1)
        if len(text) > _CLASSES_CHARACTERS:
            raise OSError("it is too large for one")
    except (OSError, UnicodeDecodeError) as error:
        raise DiffcleanError(f"{path} cannot be read as a list of classes: {error}") from error
    try:
        stored = json_of(text)
    except ValueError as error:
        if text.lstrip()[:1] in ("{", "["):
            raise DiffcleanError(f"{path} cannot be read as a list of classes: {error}.") from error
        stored = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(stored, list):
        if len(set(map(str, stored))) < len(stored):
            raise DiffcleanError(
                f"{path} names a class twice.", "Expected each class once, in the order of the logits."
            )
        stored = {str(name): index for index, name in enumerate(stored)}
    return checked_classes(stored)
