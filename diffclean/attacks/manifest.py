"""Reads the poison manifest `poison.json`, which records what was done to which image, and replays its trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.draws import image_draws
from diffclean.attacks.record import FORMAT, FORMAT_VERSION, PoisonedImage, PoisonManifest
from diffclean.attacks.registry import get
from diffclean.data.classes import checked_classes
from diffclean.data.json_file import ObjectHook, read_json
from diffclean.errors import DiffcleanError

MANIFEST_FILE = "poison.json"
_LIMIT_BYTES = 512 * 2**20
"""The largest manifest that is read, for about one and a half million images."""


_KINDS = {
    "images": list,
    "failed": dict,
    "versions": dict,
    "parameters": dict,
    "target": str,
    "poison_target_class": bool,
}


def manifest_in(path: Path) -> Path:
    """Return the file of a poison manifest that is named by itself or by the data set that contains it."""
    return path / MANIFEST_FILE if path.is_dir() else path


def read_poison_manifest(path: Path) -> PoisonManifest:
    """Read a poison manifest.

    Args:
        path: the file, or the data set that contains it.

    Raises:
        DiffcleanError: it is missing, damaged, or of another format.
    """
    path = manifest_in(path)
    hint = f"Give the {MANIFEST_FILE} that `diffclean poison` wrote."
    try:
        content = read_json(path, _LIMIT_BYTES, _each_once())
    except DiffcleanError as error:
        raise DiffcleanError(f"This is not a poison manifest: {error.message}", hint) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DiffcleanError(f"{path} is not a poison manifest.", hint)
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise DiffcleanError(f"{path} has format {found}; this diffclean reads {FORMAT_VERSION}.")
    try:
        manifest = _manifest(content)
        known = manifest.labels is Labels.ALL_TO_ALL or manifest.target in manifest.class_to_idx
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DiffcleanError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not known:
        raise DiffcleanError(f"{path} is damaged: its target {manifest.target!r} is not one of its classes.")
    return manifest


def _manifest(content: dict[str, Any]) -> PoisonManifest:
    known = {name: content[name] for name in PoisonManifest.__dataclass_fields__}
    known["class_to_idx"] = checked_classes(known["class_to_idx"])
    for name, kind in _KINDS.items():
        if not isinstance(known[name], kind):
            raise TypeError(f"{name} should be a {kind.__name__}, found {known[name]!r:.80}")
    for name in ("rate", "cover_rate"):
        if type(known[name]) not in (int, float) or not 0 <= known[name] <= 1:
            raise ValueError(f"{name} should be a number from 0 to 1, found {known[name]!r:.80}")
    if not all(isinstance(reason, str) for reason in known["failed"].values()):
        raise TypeError("failed should say in words why an image is missing")
    known["images"] = [_image(row) for row in known["images"]]
    known["labels"], known["form"] = Labels(known["labels"]), Form(known["form"])
    # The parameters are checked again, because a manifest may come from anywhere.
    known["seed"] = int(known["seed"])
    known["parameters"] = get(known["attack"]).resolve(known["parameters"], known["seed"])
    return PoisonManifest(**known)


def _each_once() -> ObjectHook:
    """A hook that stops at the second row of an image, since a small file of equal rows could become a large table."""
    seen: set[str] = set()

    def noted(content: dict[str, Any]) -> dict[str, Any]:
        output = content.get("output")
        if "source_sha256" in content and isinstance(output, str):
            if output in seen:
                raise ValueError(f"two rows are of {output!r:.80}")
            seen.add(output)
        return content

    return noted


def _image(row: Any) -> PoisonedImage:
    image = PoisonedImage(**row)
    for name in PoisonedImage.__dataclass_fields__:
        expected, found = bool if name in ("poisoned", "cover") else str, getattr(image, name)
        if type(found) is not expected:
            raise TypeError(f"{name} of an image should be a {expected.__name__}, found {found!r:.80}")
    return image


def triggered(
    image: Pixels, key: str, manifest: PoisonManifest, form: Form = Form.TEST, label: str | None = None
) -> Pixels:
    """Put the manifest's trigger on an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        key: the key of the image, which determines what the attack draws for it.
        manifest: the manifest of the data set that the model was trained on.
        form: the kind of image, since the trigger can look different in training and in testing.
        label: the true class of the image, which some attacks need in training.

    Returns:
        (H, W, 3) uint8, a copy.

    Raises:
        UsageError: the trigger does not fit the image.
    """
    return get(manifest.attack).apply(image, image_draws(manifest.seed, key), manifest.parameters, form, label or "")
