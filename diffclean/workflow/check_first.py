"""Checks before any work that data, test set, poison manifest, teacher and folder belong together."""

from __future__ import annotations

import shlex
from pathlib import Path

from diffclean.data.places import place_of
from diffclean.data.registry import FOLDER, folders_without_images, format_of, open_source
from diffclean.errors import DiffcleanError, UsageError
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.look_first import Looked


def check_same_data(found: Looked, ledger: Ledger, out: Path) -> None:
    """Refuse a folder that belongs to a data set with no image in common with this one.

    Raises:
        DiffcleanError: the folder belongs to other data. Its outcomes would be thrown away, and the user may just have
            mistyped the name of the data.
    """
    before = ledger.notes.get("look")
    where, sketch = (before.get("where"), before.get("sketch")) if isinstance(before, dict) else (None, None)
    known = {each for each in sketch if isinstance(each, str)} if isinstance(sketch, list) else set()
    if known and found.sketch and not known & set(found.sketch):
        raise DiffcleanError(
            f"{out} belongs to {where}, which has no image in common with {found.where}.",
            "Choose another folder with `out`, or remove this one.",
        )


def check_labels(found: Looked) -> None:
    """Refuse data on which no classifier can be trained because of its folders.

    Raises:
        DiffcleanError: there are no class folders, there is only one class, or a class has no image.
    """
    hint = (
        "Expected DATA/<class>/image, or a label beside each image in other formats. Without labels, images can still "
        f"be regenerated: diffclean variate {shlex.quote(found.where)}"
    )
    _check_all_labelled(found, hint)
    empty = [name for name, count in found.classes.items() if not count]
    empty += folders_without_images(Path(found.where), found.classes)
    if empty:
        why = "".join(f" {key}: {problem}." for key, problem in list(found.unreadable.items())[:1])
        raise DiffcleanError(
            f"{found.where} has classes without an image that can be read: {', '.join(empty[:10])}.{why}",
            "Add images, or remove the class (a folder of images: its folder) where it is not meant.",
        )
    if len(found.classes) == 1:
        raise DiffcleanError(f"{found.where} has one class only, {next(iter(found.classes))}.", hint)


def _check_all_labelled(found: Looked, hint: str) -> None:
    """Refuse a data set in which images have no label, or that has more to it than this user can see."""
    if found.classless:
        key, why = next(iter(found.classless.items()))
        raise DiffcleanError(
            f"{found.where} has {len(found.classless):,} files or folders that cannot be read and belong to no class, "
            f"such as {key}: {why}.",
            "Make them readable for this user, copy in what a link leads to, or take them out.",
        )
    lie_in, place = ("lie in", "class folder") if format_of(found.where) == FOLDER else ("have", "label")
    if not found.classes:
        raise DiffcleanError(f"The images in {found.where} {lie_in} no {place}s.", hint)
    unlabelled = found.images - sum(found.classes.values())
    if unlabelled:
        raise DiffcleanError(
            f"Some images in {found.where} {lie_in} no {place} ({unlabelled:,} of {found.images:,}).",
            "Give them the label of their class (a folder of images: move them into its folder), or take them out.",
        )


def check_others(config: CleanConfig, found: Looked, test: Looked | None) -> None:
    """Check that test set, poison manifest, teacher and detector fit the data, before hours are spent.

    Raises:
        UsageError: one of them does not fit.
        DiffcleanError: one of them cannot be read.
    """
    from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest
    from diffclean.classifiers.networks import check_arch, pick_device
    from diffclean.detection.registry import get

    if get(config.detector).needs_retrained:
        raise UsageError(
            f"The detector {config.detector} looks for what another one missed; `clean` asks it by itself.",
            "Name another detector, or none.",
        )
    if config.arch != "auto":
        check_arch(config.arch)
    pick_device(config.device)
    classes = set(found.classes)
    if test is not None and config.test is not None:
        _check_all_labelled(test, "Expected a test set with one folder of images, or one label, for each class.")
        _check_same(classes, set(test.classes), f"the test set {test.where}")
        if (place_of(config.test) / MANIFEST_FILE).is_file():
            raise UsageError(
                f"The test set {config.test} is poisoned already ({MANIFEST_FILE} is there).",
                "Give a clean one: `test`",
            )
    if config.poison is not None:
        manifest = read_poison_manifest(config.poison)
        _check_same(classes, set(manifest.class_to_idx), f"the poison manifest {config.poison}")
        _check_listed(config.data, {row.output for row in manifest.images} | set(manifest.failed), config.poison)
    if config.poison is None and (place_of(config.data) / MANIFEST_FILE).is_file():
        manifest = read_poison_manifest(config.data)
        _check_listed(config.data, {row.output for row in manifest.images} | set(manifest.failed), config.data)
    if config.teacher is not None:
        from diffclean.evaluation.evaluate import opened

        teacher = opened(config.teacher, config.data, pick_device("cpu"))
        _check_same(classes, set(teacher.class_to_idx), f"the teacher {config.teacher.path}")


def _check_listed(data: Path, known: set[str], poison: Path) -> None:
    unknown = [item.key for item in open_source(data).items() if item.key not in known]
    if unknown:
        raise UsageError(
            f"{len(unknown)} images of {data} are not in the poison manifest {poison}, such as {unknown[0]}.",
            "Give the poison.json that was written with these data, or remove it from a folder that was changed since.",
        )


def _check_same(classes: set[str], others: set[str], what: str) -> None:
    only_data, only_other = sorted(classes - others), sorted(others - classes)
    parts = [f"only the data have {', '.join(only_data[:5])}"] if only_data else []
    parts += [f"only {what} has {', '.join(only_other[:5])}"] if only_other else []
    if parts:
        raise UsageError(
            f"The classes of the data and of {what} do not match: {'; '.join(parts)}.",
            "Give one with the same classes.",
        )
