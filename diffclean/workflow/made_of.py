"""The inputs of each outcome of the chain: hashes of data and files, and settings, as JSON values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.hashes import sha256_of
from diffclean.datasets.samples import digest_of

if TYPE_CHECKING:
    from diffclean.variation.settings import Settings
    from diffclean.workflow.steps import Classifier, Distilling, Teaching


def teacher(data: str, teaching: Teaching, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the inputs of a teacher.

    Args:
        data: a sha256 of the training set.
        teaching: how the teacher is trained.
        left_out: the keys of the images that it does not see.
    """
    how = {"arch": teaching.arch, "size": teaching.size, "loop": teaching.loop.identity()}
    return {"data": data, "training": how, "suspects": _keys(left_out)}


def suspects(
    data: str, detector: str, seed: int, asked: Classifier | None, looks: Settings | None, size: int | None = None
) -> dict[str, Any]:
    """Return the inputs of a list of suspects: what its detector is given."""
    return ({} if size is None else {"size": size}) | {
        "data": data,
        "detector": detector,
        "seed": seed,
        "teacher": classifier(asked),
        "variations": variations(looks),
    }


def second_pass(data: str, first: Path, anew: Path, before: Path) -> dict[str, Any]:
    """Return the inputs of a second pass: both teachers, and the list that the new one was trained without."""
    return {"data": data, "teacher": sha256_of(first), "teacher anew": sha256_of(anew), "list": sha256_of(before)}


def variations(settings: Settings | None) -> dict[str, Any]:
    """Return the inputs of variations: only their settings, because `variate` itself follows changes of the data."""
    return {} if settings is None else {"settings": asdict(settings) | {"size": str(settings.size)}}


def student(
    data: str,
    taught_by: Classifier | None,
    settings: Settings | None,
    distilling: Distilling,
    left_out: Collection[str],
) -> dict[str, Any]:
    """Return the inputs of a student."""
    how: dict[str, Any] = {"arch": distilling.arch, "size": distilling.size, "loop": distilling.loop.identity()}
    how |= {"temperature": distilling.temperature, "alpha": distilling.alpha}
    return {
        "data": data,
        "teacher": classifier(taught_by),
        "variations": variations(settings),
        "distillation": how,
        "suspects": _keys(left_out),
    }


def evaluation(first: Classifier, last: Path, anew: Path | None, test: str, poison: Path | None) -> dict[str, Any]:
    """Return the inputs of the measurements of the teacher, the student and the new teacher."""
    return {
        "teacher": classifier(first),
        "student": classifier(last),
        "teacher anew": classifier(anew),
        "test": test,
        "poison": sha256_of(poison) if poison is not None else None,
    }


def classifier(asked: Classifier | None) -> Any:
    """Identify a classifier by the hash of its file and by the other settings that were given for it."""
    if asked is None:
        return None
    if isinstance(asked, Path):
        return sha256_of(asked)
    classes = sha256_of(asked.classes) if asked.classes is not None else None
    return asdict(asked) | {"path": sha256_of(asked.path), "classes": classes}


def _keys(keys: Collection[str]) -> str:
    return digest_of((key,) for key in sorted(keys)) if keys else ""
