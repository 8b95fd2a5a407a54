"""Makes the poisoned and regenerated data sets of `robustness.py`. Each is made once and kept."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from diffclean.attacks.outputs import output_name
from diffclean.data.decode import decode
from diffclean.data.encode import encode
from diffclean.data.folder import ImageFolder
from diffclean.data.manifest import latest, read_run_manifest, write_manifest
from diffclean.data.run_record import RunRecord, open_run, read_run
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate

QUICKEST = Concurrency(processes=None)
JPEG_QUALITY = 50
BLUR_RADIUS_SHARE = 1 / 40
"""Of the side: 0.8 px at 32."""


def subset(source: Path, count: int, work: Path) -> Path:
    """`count` images of a labelled folder, evenly over its classes, by their names' hashes; 0: the folder itself."""
    if not count:
        return source
    out = work / f"subset-{count}"
    if out.exists():
        return out
    by_class: dict[str, list[Any]] = {}
    for item in ImageFolder(source).items():
        by_class.setdefault(item.label, []).append(item)
    part = out.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    for label, items in by_class.items():
        (part / label).mkdir(parents=True)
        items.sort(key=lambda item: hashlib.sha256(item.key.encode()).digest())
        for item in items[: count // len(by_class)]:
            shutil.copyfile(item.path, part / label / item.path.name)
    part.rename(out)
    return out


def clean_copy(source: Path, work: Path) -> Path:
    """The clean set as `poison` would write it: what is not poisoned then has the same key and bytes in both."""
    out = work / "benign" / source.name
    if not out.exists():
        part = out.with_name(f"{out.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        folder = ImageFolder(source)
        for item in folder.items():
            path = part / output_name(item, item.label)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(decode(folder.read(item))))
        part.rename(out)
    return out


def baseline(source: Path, kind: str, out: Path) -> Path:
    """Every image through JPEG or a blur, in place of the diffusion model."""
    if out.exists():
        return out
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    folder = ImageFolder(source)

    def change(item: Any) -> None:
        path = part / item.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            encode(_jpeg(decode(folder.read(item))) if kind == "jpeg" else _blur(decode(folder.read(item))))
        )

    with ThreadPoolExecutor() as pool:
        list(pool.map(change, folder.items()))
    part.rename(out)
    return out


def _jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(buffer))


def _blur(image: np.ndarray) -> np.ndarray:
    radius = min(image.shape[:2]) * BLUR_RADIUS_SHARE
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def variations_of(poisoned: Path, clean: Path, settings: Settings, root: Path) -> Path:
    """A variation run of `poisoned`, in which images that are as in `clean` are not generated again.

    That is the same, byte for byte: a variation depends on its image, its key and the run's seed alone.
    """
    digest = hashlib.sha256(str(sorted(asdict(settings).items(), key=str)).encode()).hexdigest()[:8]
    of_clean = root / f"{clean.name}-{digest}"
    variate(clean, of_clean, settings, concurrency=QUICKEST)
    if poisoned == clean:
        return of_clean
    out = root / f"{poisoned.name}-{digest}"
    if out.exists():
        return out
    changed = _changed(poisoned, clean, root / f"{poisoned.name}-changed")
    of_changed = root / f"{poisoned.name}-changed-{digest}"
    variate(changed, of_changed, settings, concurrency=QUICKEST)
    rows = {}
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    keys = {item.key for item in ImageFolder(poisoned).items()}
    for run in (of_clean, of_changed):
        for place, row in latest(read_run_manifest(run / "manifest.parquet")).items():
            if row.key in keys:
                rows[place] = (run, row)
    record = read_run(of_changed)
    classes = read_run(of_clean).class_to_idx
    open_run(part, RunRecord(record.identity, classes, source=str(poisoned.resolve())))
    for run, row in rows.values():
        if row.output:
            (part / row.output).parent.mkdir(parents=True, exist_ok=True)
            os.link(run / row.output, part / row.output)
    write_manifest(part, [row for _, row in rows.values()], class_to_idx=read_run(of_clean).class_to_idx)
    part.rename(out)
    return out


def _changed(poisoned: Path, clean: Path, out: Path) -> Path:
    """The images of `poisoned` that `clean` does not have with the same key and bytes."""
    for item in ImageFolder(poisoned).items():
        twin = clean / item.key
        if not (twin.is_file() and twin.read_bytes() == item.path.read_bytes()):
            copy = out / item.key
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(item.path, copy)
    return out
