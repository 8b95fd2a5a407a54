"""The first part of `clean`: look at the data, decide everything, and say what it will take. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.apart import check_separate
from diffclean.environment import disk_free_bytes
from diffclean.errors import DiffcleanError, UsageError
from diffclean.report.reading import from_json
from diffclean.results import KEPT_BACK, plain
from diffclean.variation.settings import Settings
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.costs import measured_costs
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.look_first import Looked, look
from diffclean.workflow.plan import Plan, duration, first_plan, within_budget
from diffclean.workflow.steps import Hands

LOOK_STRENGTH, LOOKS = 0.4, 4
"""What detectors that look at variations want of them."""


@dataclass(frozen=True)
class Prepared:
    """A job that is decided and not begun.

    Attributes:
        config: what was asked for.
        found: what is in the data.
        plan: what will be done.
        test: what is in the test set.
        device: that trains, as people call it.
        engine_side: the side in px of the square that the engine looks at; larger images are looked at in windows.
        licence: of the engine's weights.
        free_bytes: on the disk of the output.
        goes_on: steps that an earlier run has done.
        ledger: of the job's folder.
    """

    config: CleanConfig
    found: Looked
    plan: Plan
    test: Looked | None
    device: str
    engine_side: int
    licence: str
    free_bytes: int
    goes_on: list[str]
    ledger: Ledger = field(metadata=KEPT_BACK)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing before one believes the result, in sentences."""
        found, said = self.found, list(self.found.notes)
        if found.copies:
            across = f", {found.copies_across} of them in another class than the first" if found.copies_across else ""
            said.append(f"{found.copies} images are exact copies of others{across}.")
        if found.alike:
            said.append(f"{found.alike} more look like another image (a hash of 64 bits; small images may by chance).")
        if found.largest_side > self.engine_side:
            said.append(
                f"Images are up to {found.largest_side} px long; the engine looks at them at up to {self.engine_side} "
                "px, so their variations are softer."
            )
        return said


def prepare(config: CleanConfig, hands: Hands) -> Prepared:
    """Look at the data and decide what will be done.

    Args:
        config: what is asked for.
        hands: who follows it.

    Raises:
        UsageError: a setting makes no sense, or test set, manifest or teacher do not go with the data.
        DiffcleanError: the data cannot be used; the folder of the job holds something else; the budget is too small.
    """
    from diffclean.variation.settings import locate, recipe_of

    config.check()
    check_separate(config.data, config.out)
    ledger = opened_ledger(config.out)
    found = looked_at(config.data, ledger.notes.get("look"), hands)
    check_same_data(found, ledger, config.out)
    check_labels(found)
    test = looked_at(config.test, ledger.notes.get("test"), hands) if config.test is not None else None
    check_others(config, found, test)
    settings = settings_of(config, config.variations or 1)
    recipe = recipe_of(settings)
    resolved = settings.resolved(recipe.defaults)
    located = locate(settings, hands.progress)
    device, has_gpu = trains_on(config.device)
    plan = known_plan(config, ledger) or decided(config, found, resolved, has_gpu)
    side = max(located.manifest.image_size, located.settings.detail or 0)
    above = next(folder for folder in (config.out, *config.out.absolute().parents) if folder.exists())
    return Prepared(
        config, found, plan, test, device, side, recipe.license_note, disk_free_bytes(above), ledger.done, ledger
    )


def opened_ledger(out: Path) -> Ledger:
    """The ledger of the job's folder.

    Raises:
        DiffcleanError: something else is there.
    """
    ledger = Ledger(out)
    if out.exists() and not out.is_dir():
        raise DiffcleanError(f"{out} is no folder.", "Choose another one with `out`.")
    if not ledger.path.exists() and out.is_dir():
        strangers = sorted(path.name for path in out.iterdir() if not path.name.startswith(".diffclean"))
        if strangers:
            raise DiffcleanError(
                f"{out} is not empty and holds no state.json of an earlier run (found {strangers[0]!a}).",
                "Choose another folder with `out`, or empty this one.",
            )
    return ledger


def looked_at(data: Path, before: Any, hands: Hands) -> Looked:
    """What is in a data set; what an earlier run found there is believed where no image has changed since."""
    try:
        known = from_json(Looked, before) if before is not None else None
    except ValueError:  # of another version: look again
        known = None
    return look(data, known, hands.progress, hands.stop)


def check_same_data(found: Looked, ledger: Ledger, out: Path) -> None:
    """Refuse a folder that belongs to a data set which has no image in common with this one.

    Raises:
        DiffcleanError: its outcomes would be thrown away, and the data may just be mistyped.
    """
    before = ledger.notes.get("look") or {}
    sketch = set(before.get("sketch") or ())
    if sketch and found.sketch and not sketch & set(found.sketch):
        raise DiffcleanError(
            f"{out} belongs to {before.get('where')}, which has no image in common with {found.where}.",
            "Choose another folder with `out`, or remove this one.",
        )


def check_labels(found: Looked) -> None:
    """Refuse data that no classifier can be trained on because of how they lie.

    Raises:
        DiffcleanError: no class folders, one class, or a class without an image.
    """
    hint = (
        f"Expected DATA/<class>/image. Without labels, images can still be regenerated: diffclean variate {found.where}"
    )
    if not found.classes or set(found.classes) == {""}:
        raise DiffcleanError(f"The images in {found.where} lie in no class folders.", hint)
    if "" in found.classes:
        raise DiffcleanError(
            f"Some images in {found.where} lie in no class folder ({found.classes['']} of {found.images}).",
            "Move them into the folder of their class, or out of the data.",
        )
    if len(found.classes) == 1:
        raise DiffcleanError(f"{found.where} has one class only, {next(iter(found.classes))}.", hint)
    empty = [name for name, count in found.classes.items() if not count]
    if empty:
        raise DiffcleanError(
            f"{found.where} has classes without an image that can be read: {', '.join(empty[:10])}.",
            "Add images, or remove the folder where the class is not meant.",
        )


def check_others(config: CleanConfig, found: Looked, test: Looked | None) -> None:
    """Look whether test set, poison manifest and teacher go with the data, before hours are spent.

    Raises:
        UsageError: they do not.
        DiffcleanError: one cannot be read.
    """
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.classifiers.networks import check_arch, pick_device

    if config.arch != "auto":
        check_arch(config.arch)
    pick_device(config.device)
    classes = set(found.classes)
    if test is not None:
        _check_same(classes, set(test.classes), f"the test set {test.where}")
    if config.poison is not None:
        _check_same(
            classes, set(read_poison_manifest(config.poison).class_to_idx), f"the poison manifest {config.poison}"
        )
    if config.teacher is not None:
        from diffclean.evaluation.evaluate import opened

        teacher = opened(config.teacher, config.data, pick_device("cpu"))
        _check_same(classes, set(teacher.class_to_idx), f"the teacher {config.teacher.path}")


def _check_same(classes: set[str], others: set[str], what: str) -> None:
    only_data, only_other = sorted(classes - others), sorted(others - classes)
    parts = [f"only the data have {', '.join(only_data[:5])}"] if only_data else []
    parts += [f"only {what} has {', '.join(only_other[:5])}"] if only_other else []
    if parts:
        raise UsageError(
            f"The classes of the data and of {what} do not match: {'; '.join(parts)}.",
            "Give one with the same classes.",
        )


def settings_of(config: CleanConfig, variations: int) -> Settings:
    """The settings of the variations that the student sees."""
    return Settings(
        engine=config.engine, strength=config.strength, variations=variations, seed=config.seed, full_names=True
    )


def look_settings_of(config: CleanConfig) -> Settings:
    """The settings of the variations that a detector looks at."""
    return Settings(engine=config.engine, strength=LOOK_STRENGTH, variations=LOOKS, seed=config.seed, full_names=True)


def trains_on(name: str | None) -> tuple[str, bool]:
    """What classifiers are trained on, as people call it, and whether it is a GPU."""
    from diffclean import environment
    from diffclean.classifiers.networks import pick_device

    device = pick_device(name)
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device), True
    cores = environment.usable_cores()
    return f"{cores:g} {'core' if cores == 1 else 'cores'} of {environment.cpu().name}", False


def known_plan(config: CleanConfig, ledger: Ledger) -> Plan | None:
    """The plan of an earlier run of the same command, so that a resumed job stays the same; None: there is none."""
    if ledger.notes.get("asked") != plain(config.asked()):
        return None
    try:
        return from_json(Plan, ledger.notes["plan"])
    except (KeyError, ValueError):
        return None


def decided(config: CleanConfig, found: Looked, settings: Settings, has_gpu: bool) -> Plan:
    """The plan for data that are looked at for the first time: measures for some seconds."""
    plan = first_plan(config, found, has_gpu)
    side = plan.size or found.largest_side
    nowhere = config.out / ".diffclean-none"  # an estimate counts what is there already: nothing
    costs = measured_costs(
        config.data, nowhere, settings, plan.arch, side, len(found.classes), plan.batch_size, config.device
    )
    return within_budget(plan, config, found, costs)


def told(prepared: Prepared) -> list[str]:
    """What there is and what will be done, in lines for people."""
    found, plan, config = prepared.found, prepared.plan, prepared.config
    sizes = list(found.sizes)
    lines = [
        f"{found.images:,} images in {len(found.classes)} classes ({found.bytes / 1e6:,.1f} MB), "
        f"{sizes[0] if len(sizes) == 1 else f'{len(sizes)} sizes up to {found.largest_side} px'}.",
        f"Classes: {_counts(found.classes)}.",
    ]
    if found.unreadable:
        key, why = next(iter(found.unreadable.items()))
        lines.append(f"{len(found.unreadable)} images cannot be read and are left out, such as {key} ({why}).")
    lines += prepared.notes
    lines += plan.cannot
    lines.append(f"Engine: {config.engine} ({plan.engine}). Licence: {prepared.licence or 'see the model'}.")
    if plan.trains:
        lines.append(
            f"Classifiers: {plan.arch}, {plan.epochs} epochs, images {_shown(plan.size)}, on {prepared.device}. "
            f"Suspects: {f'looked for by {config.detector}' if plan.searches else 'not looked for'}."
        )
    tested = f"{plan.self_test:,} images, 3 triggers" if plan.self_test else f"none. {plan.no_self_test}"
    lines.append(f"Variations: {plan.variations} of each image. Self-test: {tested.rstrip('.')}.")
    lines += [f"To keep to the budget: {line}" for line in plan.gave_up]
    if config.test is None and plan.trains:
        lines.append("There is no test set (--test), so the clean accuracy will not be measured.")
    steps = ", ".join(f"{step} {duration(taken)}" for step, taken in plan.seconds.items())
    lines.append(f"Expected: about {duration(plan.total_s)} ({steps}).")
    lines.append(
        f"Disk: about {plan.bytes / 1e6:,.0f} MB in {config.out}; {prepared.free_bytes / 1e9:,.0f} GB are free."
    )
    if prepared.goes_on:
        lines.append(
            f"Done by an earlier run, and done again only where something changed: {', '.join(prepared.goes_on)}."
        )
    return lines


def _counts(classes: Mapping[str, int], shown: int = 12) -> str:
    names = [f"{name} ({count:,})" for name, count in list(classes.items())[:shown]]
    return ", ".join(names) + (f" and {len(classes) - shown} more" if len(classes) > shown else "")


def _shown(size: int | None) -> str:
    return "as they are" if size is None else f"resized to {size} px"
