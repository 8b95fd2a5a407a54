"""Decide which images of a data set are poisoned and where they go, before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffclean.attacks.manifest import MANIFEST_FILE, PoisonManifest
from diffclean.attacks.registry import get
from diffclean.data.item import Item
from diffclean.data.keys import key_bytes
from diffclean.data.sources import ImageFolder
from diffclean.errors import DiffcleanError, UsageError


@dataclass(frozen=True)
class Plan:
    """What `poison.write` will do.

    Attributes:
        source: the clean data set.
        manifest: as it will be, still without its rows.
        outputs: key -> key in the written data set, for every image.
        chosen: the keys that get the trigger.
    """

    source: ImageFolder
    manifest: PoisonManifest
    outputs: dict[str, str]
    chosen: set[str]


def dirty_label_plan(
    data: Path, attack: str, rate: float, target: str, seed: int = 1, parameters: Mapping[str, Any] | None = None
) -> Plan:
    """Plan a poisoned training set: `round(rate * all images)` images of other classes move to the target's folder.

    Args:
        data: root/<class>/**/image.
        attack: a name in `registry.ATTACKS`.
        rate: poison rate, in (0, 1).
        target: the target class.
        seed: of the choice, the pattern, and what differs between images.
        parameters: of the attack, over its defaults.

    Raises:
        UsageError: no such attack, parameter or class; a rate that poisons nothing or leaves no clean image.
        DiffcleanError: the data cannot be used.
    """
    resolved = get(attack).resolve(parameters or {}, seed)
    source = _labelled(data)
    _distinct({item.key: _output(item, None) for item in source.items()})  # whatever the seed moves away
    if target not in source.class_to_idx:
        raise UsageError(f"{data} has no class {target!r}.", f"It has: {', '.join(source.class_to_idx)}.")
    chosen = choose(source.items(), rate, target, seed)
    outputs = {item.key: _output(item, target if item.key in chosen else None) for item in source.items()}
    manifest = PoisonManifest(attack, resolved, rate, target, seed, "dirty", source.class_to_idx)
    return Plan(source, manifest, _distinct(outputs), chosen)


def triggered_plan(manifest: PoisonManifest, data: Path) -> Plan:
    """Plan a triggered test set: *every* image carries the manifest's trigger and keeps its true label.

    Args:
        manifest: of the data set that the attack was trained on.
        data: root/<class>/**/image.

    Raises:
        DiffcleanError: the data cannot be used.
    """
    source = _labelled(data)
    outputs = {item.key: _output(item, None) for item in source.items()}
    kept = replace(manifest, rate=1.0, labels="kept", class_to_idx=source.class_to_idx, images=[], failed={})
    if manifest.target not in source.class_to_idx:
        raise UsageError(f"{data} has no class {manifest.target!r}, the attack's target.")
    return Plan(source, kept, _distinct(outputs), set(outputs))


def choose(items: list[Item], rate: float, target: str, seed: int) -> set[str]:
    """The keys to poison: those of other classes than the target that hash lowest with the seed.

    Raises:
        UsageError: the rate poisons nothing, leaves no clean image, or wants more than the other classes have.
    """
    count = round(rate * len(items))
    if rate >= 1 or count >= len(items):
        raise UsageError(f"A poison rate of {rate:g} leaves no clean image among {len(items)}.", "Try: --rate 0.1")
    if count < 1:
        raise UsageError(f"A poison rate of {rate:g} poisons none of {len(items)} images.", "Try: --rate 0.1")
    others = [item.key for item in items if item.label != target]
    if count > len(others):
        raise UsageError(
            f"A poison rate of {rate:g} needs {count} images of classes other than {target!r}, of {len(others)}.",
            f"Give at most --rate {len(others) / len(items):.3f}.",
        )
    start = b"diffclean-poison\0%d\0" % seed
    return set(sorted(others, key=lambda key: hashlib.sha256(start + key_bytes(key)).digest())[:count])


def _labelled(data: Path) -> ImageFolder:
    source = ImageFolder(data)
    if (data / MANIFEST_FILE).exists():
        raise DiffcleanError(
            f"{data} is already poisoned ({MANIFEST_FILE} is there).", "Start from the clean data set."
        )
    flat = sum(item.label == "" for item in source.items())
    if flat:
        raise DiffcleanError(f"{data} has {flat} images in no class folder.", "Expected DATA/<class>/image.")
    return source


def _output(item: Item, target: str | None) -> str:
    """The key in the written data set: always PNG; a poisoned image moves to its target and keeps its class's name."""
    folder, slash, name = item.key.rpartition("/")
    stem = f"{folder}{slash}{name.rpartition('.')[0]}"
    if target is None:
        return f"{stem}.png"
    folder, _, name = stem.removeprefix(f"{item.label}/").rpartition("/")
    return "/".join(part for part in (target, folder, f"{item.label}__{name}.png") if part)


def _distinct(outputs: dict[str, str]) -> dict[str, str]:
    """The same, or an error where two images would need one name (on a disk that ignores case)."""
    owners: dict[str, str] = {}
    for key, output in outputs.items():
        other = owners.setdefault(output.casefold(), key)
        if other != key:
            raise DiffcleanError(f"{other} and {key} would both become {output}.", "Rename one of them in the source.")
    return outputs
