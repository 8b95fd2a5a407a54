"""Loads bare weights, as training programs of all kinds save them, into a classifier."""

from __future__ import annotations

import logging
from collections import Counter
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
"""The mean and standard deviation of R, G, B in [0, 1]."""

_PLACES = ("state_dict", "model_state_dict", "model", "net", "netC", "weights", "params")
"""The names under which programs put the weights in a larger file."""
_AVERAGES = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "swa_state_dict")
"""The names for an average of the weights over the training. It is used if there are no other weights."""
_COUNTERS = ("n_averaged", "total_ops", "total_params")
"""Numbers that torch's AveragedModel and thop's profiler leave among the weights."""
_CLASSES_CHARACTERS = 4 * 2**20
_MOST_PREFIXES = 1000
"""The prefixes that are compared with all weights of a network, since a file may have as many as tensors."""
_TOLERATED = "num_batches_tracked"
"""A tensor that older programs do not save; a classifier's answers do not depend on it."""


@dataclass(frozen=True)
class Table:
    """A table of weights in a file.

    Attributes:
        place: the name of the table in the file; empty if the file itself is the table.
        tensors: the tensors by name.
        others: the names of other tables of weights in the file, which are not used.
    """

    place: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...] = ()


def find_state_dict(content: Mapping[str, Any]) -> Table | None:
    """Find the weights in the content of a file; None if there are none."""
    tables = {place: found for place in (*_PLACES, *_AVERAGES) if (found := _tensors_at(content.get(place)))}
    if tables:
        place, *others = tables
        return Table(place, tables[place], tuple(others))
    if tensors := _tensors_at(content, deeper=False):
        return Table("", tensors)
    named = {str(place): found for place, value in content.items() if (found := _tensors_at(value))}
    return Table(*named.popitem()) if len(named) == 1 else None  # under a name of one's own


def _tensors_at(value: Any, deeper: bool = True) -> dict[str, Tensor]:
    """The tensors in a table, or in a table of weights within it; empty if there are none."""
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
    """The weights of a table under the names of a `Classifier`, found without creating the network.

    Wrappers put a prefix before the name of each weight, and a file may hold other tensors, such as those of a loss or
    of a second network. The weights with one prefix that fit are used; a log message says which ones were ignored. If
    the network has no normalisation, `mean` and `std` are missing in the result.

    Args:
        table: the table, from `find_state_dict`.
        shapes: the shapes of a complete `Classifier`, from `networks.shapes_of`.
        path: the file of the weights.
        what: a description of the network, for the message.
        role: what the hint calls the classifier, as in `ClassifierFile`.

    Raises:
        DiffcleanError: the weights belong to another network, or to another number of classes.
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
        f"Check `{role}_arch`, and `{role}_classes`, which must name one class for each logit.",
    )


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> list[str]:
    """The prefixes of the names in a table: the best first, then others with which as many weights fit."""
    needed = [name for name in wanted if not name.endswith(_TOLERATED)]
    anchored = (name.removesuffix(anchor) for anchor in needed[:3] for name in state if name.endswith(f".{anchor}"))
    found = [prefix for prefix, _ in Counter(anchored).most_common(_MOST_PREFIXES)]
    order = sorted(found, key=lambda prefix: (len(prefix), prefix))
    counts = {prefix: sum(f"{prefix}{name}" in state for name in needed) for prefix in ("", *order)}
    best = max(counts.values())
    return [prefix for prefix, count in counts.items() if count == best]


def _tell(table: Table, path: Path, prefix: str, passed: list[str], rivals: list[str]) -> None:
    """Log which weights were used, if a file holds those of more than one network."""
    if table.others:
        log.warning(
            "%s holds several tables of weights; %s is used, not %s. To use another one: "
            "torch.save(torch.load(FILE, weights_only=True)['%s'], 'weights.pt').",
            path, table.place, ", ".join(table.others), table.others[0],
        )  # fmt: skip
    if rivals:
        log.warning("%s holds several networks; the weights under '%s' are used, not '%s'.", path, prefix, rivals[0])
    if passed:
        log.info("%s holds %d tensors that are not the network's, such as %s; they are ignored.",
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
    problems += [f"{len(unexpected)} do not belong to it, such as {unexpected[0]}"] if unexpected else []
    return problems + shapes[:3]


def load_fitted(model: Classifier, state: Mapping[str, Tensor], path: Path) -> None:
    """Load fitted weights into a classifier; weights that may be missing keep their values.

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
    """The usual normalisation of an architecture, and its image size if it takes no other."""
    if arch in ARCHITECTURES:
        return (IMAGENET_MEAN, IMAGENET_STD), None
    import timm

    usual = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    if usual is None:
        return (IMAGENET_MEAN, IMAGENET_STD), None
    _, height, width = usual.input_size
    return (tuple(usual.mean), tuple(usual.std)), (height, width) if usual.fixed_input_size else None


def read_classes(path: Path) -> dict[str, int]:
    """Read `class_to_idx` from a file: JSON (a list of names, or an object name -> index), or one name on each line.

    Raises:
        DiffcleanError: the file cannot be read, or names a class twice.
    """
    try:
        if not path.is_file():
            raise OSError("it is not a regular file")
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_CLASSES_CHARACTERS + 1)
        if len(text) > _CLASSES_CHARACTERS:
            raise OSError("it is too large for a list of classes")
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
