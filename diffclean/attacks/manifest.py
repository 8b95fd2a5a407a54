"""The poison manifest: `poison.json`, what was done to which image; enough to put the same trigger on other images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffclean.attacks.base import Pixels, image_rng
from diffclean.attacks.registry import get
from diffclean.data.classes import checked_classes
from diffclean.errors import DiffcleanError

MANIFEST_FILE = "poison.json"
FORMAT = "diffclean-poison"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class PoisonedImage:
    """A row: one image of the data set that was written.

    Attributes:
        key: in the source.
        output: in the written data set.
        label: its true class.
        poisoned: whether it carries the trigger.
        source_sha256: of the file that was read.
        output_sha256: of the file that was written.
    """

    key: str
    output: str
    label: str
    poisoned: bool
    source_sha256: str
    output_sha256: str


@dataclass(frozen=True)
class PoisonManifest:
    """All about one poisoned data set.

    Attributes:
        attack: name in `registry.ATTACKS`.
        parameters: complete, from `Attack.resolve`.
        rate: share of all images that carry the trigger.
        target: the target class.
        seed: chose the poisoned images, and what differs between them.
        labels: `dirty`: poisoned images have the target's label; `kept`: a triggered test set, true labels.
        class_to_idx: class -> number, as in the source.
        images: a row an image.
        failed: key -> why that image is missing.
        versions: of the program that wrote it.
    """

    attack: str
    parameters: Mapping[str, Any]
    rate: float
    target: str
    seed: int
    labels: str
    class_to_idx: dict[str, int]
    images: list[PoisonedImage] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> str:
        """The text of `poison.json`; a line an image, so that it can be searched and compared."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self), "images": None}
        rows = ",\n".join("  " + json.dumps(asdict(row)) for row in self.images)
        return json.dumps(head, indent=1).replace('"images": null', f'"images": [\n{rows}\n ]', 1) + "\n"


def read_manifest(path: Path) -> PoisonManifest:
    """Read a poison manifest.

    Args:
        path: the file, or the data set that holds it.

    Raises:
        DiffcleanError: it is missing, damaged, or of a newer format.
    """
    path = path / MANIFEST_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DiffcleanError(f"{path}: {error.strerror}.", f"Give the {MANIFEST_FILE} that `poison` wrote.") from error
    except ValueError as error:
        raise DiffcleanError(f"{path} is not a poison manifest: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DiffcleanError(f"{path} is not a poison manifest.", f"Give the {MANIFEST_FILE} that `poison` wrote.")
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise DiffcleanError(f"{path} has format {found}; this diffclean reads {FORMAT_VERSION}.")
    try:
        known = {name: content[name] for name in PoisonManifest.__dataclass_fields__}
        known["class_to_idx"] = checked_classes(known["class_to_idx"])
        known["images"] = [PoisonedImage(**row) for row in known["images"]]
        # Checked again: a manifest may come from anywhere.
        known["parameters"] = get(known["attack"]).resolve(known["parameters"], int(known["seed"]))
        manifest = PoisonManifest(**known)
    except (KeyError, TypeError, ValueError) as error:
        raise DiffcleanError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if manifest.target not in manifest.class_to_idx:
        raise DiffcleanError(f"{path} is damaged: its target {manifest.target!r} is not one of its classes.")
    return manifest


def triggered(image: Pixels, key: str, manifest: PoisonManifest) -> Pixels:
    """The manifest's trigger on any image.

    Args:
        image: (H, W, 3) uint8 RGB.
        key: the image's key; decides what the attack draws for each image.
        manifest: of the data set that the model was trained on.

    Returns:
        (H, W, 3) uint8, a copy.

    Raises:
        UsageError: the trigger does not fit the image.
    """
    return get(manifest.attack).apply(image, image_rng(manifest.seed, key), manifest.parameters)
