"""Writes a poisoned copy of a data set, or a triggered copy of a test set, with its manifest."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

from diffclean import __version__
from diffclean.attacks.base import Form
from diffclean.attacks.manifest import MANIFEST_FILE, PoisonedImage, PoisonManifest, triggered
from diffclean.attacks.plan import PoisonPlan, training_plan
from diffclean.data.atomic import make_folders, temporary_folder, write_error
from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.item import Item, ItemError
from diffclean.data.keys import path_from_key
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.progress import NoProgress, Progress


def poison(
    data: Path,
    out: Path,
    attack: str,
    rate: float | None = None,
    target: str | None = None,
    seed: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    *,
    labels: str | None = None,
    poison_target_class: bool | None = None,
    cover_rate: float | None = None,
) -> PoisonManifest:
    """Write a poisoned copy of a labelled image folder: `plan.training_plan`, then `write`."""
    plan = training_plan(
        data,
        attack,
        rate,
        target,
        seed,
        parameters,
        labels=labels,
        poison_target_class=poison_target_class,
        cover_rate=cover_rate,
    )
    return write(plan, out, progress)


def write(
    plan: PoisonPlan, out: Path, progress: Progress | None = None, stop: Event | None = None, workers: int | None = None
) -> PoisonManifest:
    """Carry out a plan: write every image as lossless PNG, and `poison.json`.

    Args:
        plan: a plan, from `plan.training_plan` or `plan.triggered_plan`.
        out: the folder to write; it must not exist, and appears when it is complete.
        progress: is advanced for each image.
        stop: set this event to stop the work.
        workers: the number of threads; None stands for one for each core. It does not change the bytes.

    Returns:
        The manifest as written; images that cannot be read are in its `failed`.

    Raises:
        UsageError: the trigger does not fit an image.
        DiffcleanError: `out` exists or cannot be written, or no image can be read.
        Interrupted: `stop` was set; nothing is left behind.
    """
    check_out(out, Path(plan.source.where))
    progress = progress or NoProgress()
    items = plan.source.items()
    make_folders(out.parent)
    progress.begin("Poisoning", len(items))
    try:
        with temporary_folder(out) as part:
            rows, failed = _copied(plan, items, part, progress, stop, workers)
            if not rows:
                key, why = next(iter(failed.items()))
                source = plan.source.where
                raise DiffcleanError(f"None of the {len(failed)} images in {source} can be read. {key}: {why}")
            versions = {"diffclean": __version__, "python": platform.python_version()}
            done = replace(plan.manifest, images=rows, failed=failed, versions=versions)
            (part / MANIFEST_FILE).write_text(done.as_json(), encoding="utf-8")
            os.sync()  # once for all: nothing here resumes, so a single image need not outlive a crash
            part.rename(out)
    except OSError as error:
        raise write_error(error, out) from error
    finally:
        progress.end()
    return done


def _copied(
    plan: PoisonPlan, items: Sequence[Item], part: Path, progress: Progress, stop: Event | None, workers: int | None
) -> tuple[list[PoisonedImage], dict[str, str]]:
    """Write all images; returns what became of them, and key -> why an image cannot be used."""
    rows: list[PoisonedImage] = []
    failed: dict[str, str] = {}
    for folder in {(part / path_from_key(output)).parent for output in plan.outputs.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    try:
        for item, row in zip(items, pool.map(lambda item: _try_copy(plan, item, part), items), strict=True):
            if stop is not None and stop.is_set():
                raise Interrupted("Interrupted.", "Nothing was written; the same command starts from the beginning.")
            if isinstance(row, str):
                failed[item.key] = row
            else:
                rows.append(row)
            progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    return rows, failed


def check_out(out: Path, source: Path) -> None:
    """Refuse an output that exists already, or that would be a part of its source.

    Raises:
        DiffcleanError: the message says which.
    """
    if os.path.lexists(out):
        raise DiffcleanError(f"{out} exists.", "Name another folder with `out`, or remove it.")
    if not {path.resolve() for path in (out, *out.parents)}.isdisjoint({source.resolve()}):
        raise DiffcleanError(
            f"{out} lies inside {source}, and would be a class of it.", "Name another folder with `out`."
        )


def _try_copy(plan: PoisonPlan, item: Item, root: Path) -> PoisonedImage | str:
    """Decode, put the trigger on if the plan says so, encode and write; or return why the image cannot be used."""
    try:
        data = plan.source.read(item)
        image = decode(data)
        form = plan.forms.get(item.key)
        if form is not None:
            image = triggered(image, item.key, plan.manifest, form, item.label)
        written = encode(image)
    except ItemError as error:
        return error.message
    output = plan.outputs[item.key]
    (root / path_from_key(output)).write_bytes(written)
    hashes = hashlib.sha256(data).hexdigest(), hashlib.sha256(written).hexdigest()
    poisoned = form in (Form.TRAIN, Form.TEST)
    target = plan.manifest.target_of(item.label) if poisoned else ""
    return PoisonedImage(item.key, output, item.label, poisoned, *hashes, form is Form.COVER, target)
