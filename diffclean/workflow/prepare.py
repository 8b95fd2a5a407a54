"""The first part of `clean`: looks at the data, makes all decisions, and estimates the cost. It writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.apart import check_all_separate
from diffclean.data.atomic import check_writable
from diffclean.data.registry import open_source
from diffclean.environment import disk_free_bytes
from diffclean.errors import DiffcleanError, UsageError
from diffclean.report.reading import from_json
from diffclean.results import KEPT_BACK, plain
from diffclean.variation.settings import Settings
from diffclean.workflow.budget import planned
from diffclean.workflow.check_first import check_labels, check_others, check_same_data
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.costs import Costs, measured_costs
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.look_first import Looked, look
from diffclean.workflow.plan import Plan
from diffclean.workflow.steps import Hands

LOOK_STRENGTH, LOOKS = 0.4, 4
"""What detectors that look at variations want of them."""


@dataclass(frozen=True)
class Prepared:
    """A job that has been planned and not begun.

    Attributes:
        config: the settings.
        found: the contents of the data set.
        plan: the decisions.
        test: the contents of the test set.
        device: the device that trains, as people call it.
        engine_side: the side in px of the engine's square. Larger images are regenerated in windows.
        licence: the licence of the engine's weights.
        free_bytes: the free space on the disk of the output.
        goes_on: the steps that an earlier run has done.
        ledger: the ledger of the job's folder.
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
        """What a reader should know before trusting the result, in sentences."""
        found, said = self.found, list(self.found.notes)
        if found.copies:
            across = f", {found.copies_across} of them in another class than the first" if found.copies_across else ""
            said.append(f"{found.copies} images are exact copies of others{across}.")
        if found.alike:
            said.append(f"{found.alike} more look like another image (a hash of 64 bits; small images may by chance).")
        if self.test is not None and self.test.digest == found.digest:
            said.append("The test set is the data itself, so nothing is measured on images new to a classifier.")
        if found.largest_side > self.engine_side:
            said.append(
                f"Images are up to {found.largest_side} px long; the engine looks at them at up to {self.engine_side} "
                "px, so their variations are softer."
            )
        return said


def prepare(config: CleanConfig, hands: Hands, *, dry_run: bool = False) -> Prepared:
    """Look at the data and decide what will be done.

    Args:
        config: the settings.
        hands: the progress and the stop event.
        dry_run: whether nothing will be written afterwards, so that it does not matter where nothing can be written.

    Raises:
        UsageError: a setting makes no sense, or test set, manifest or teacher do not fit the data.
        DiffcleanError: the data cannot be used; the folder of the job holds something else; the budget is too small.
        WriteError: the folder of the job cannot be written. This is found before the data is read.
    """
    from diffclean.variation.settings import locate, recipe_of

    config.check()
    check_all_separate(open_source(config.data).places(), config.out)
    ledger = opened_ledger(config.out)
    if not dry_run:
        check_writable(config.out)
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
    plan = known_plan(config, ledger, found) or decided(config, found, resolved, has_gpu)
    if config.needs_self_test and not plan.self_test:
        raise UsageError(
            "`max_asr` or `max_loss` was given, and only a self-test could measure what it limits. There is none: "
            f"{plan.no_self_test or 'no classifier can be trained.'}",
            "Give a clean test set with `test`, and with `max_asr` the `poison` manifest of the data.",
        )
    free = disk_free_bytes(config.out.absolute())
    if plan.bytes > free and not ledger.done:
        raise DiffcleanError(
            f"The job needs about {plan.bytes / 1e6:,.0f} MB in {config.out}, and {free / 1e6:,.0f} MB are free there.",
            "Free some space, or choose another folder with `out`.",
        )
    side = max(located.manifest.image_size, located.settings.detail or 0)
    return Prepared(config, found, plan, test, device, side, recipe.license_note, free, ledger.done, ledger)


def opened_ledger(out: Path) -> Ledger:
    """Open the ledger of the job's folder.

    Raises:
        DiffcleanError: the folder holds something else.
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
    """Look at a data set. The result of an earlier run is reused if no image has changed since."""
    try:
        known = from_json(Looked, before) if before is not None else None
    except ValueError:  # Another version wrote it: look again.
        known = None
    return look(data, known, hands.progress, hands.stop)


def settings_of(config: CleanConfig, variations: int) -> Settings:
    """Return the settings of the variations that the student sees."""
    return Settings(
        engine=config.engine, strength=config.strength, variations=variations, seed=config.seed, full_names=True
    )


def look_settings_of(config: CleanConfig) -> Settings:
    """Return the settings of the variations that a detector looks at."""
    return Settings(engine=config.engine, strength=LOOK_STRENGTH, variations=LOOKS, seed=config.seed, full_names=True)


def trains_on(name: str | None) -> tuple[str, bool]:
    """Return the name of the device that trains classifiers, and whether it is a GPU."""
    from diffclean import environment
    from diffclean.classifiers.networks import pick_device

    device = pick_device(name)
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device), True
    cores = environment.usable_cores()
    return f"{cores:g} {'core' if cores == 1 else 'cores'} of {environment.cpu().name}", False


def known_plan(config: CleanConfig, ledger: Ledger, found: Looked) -> Plan | None:
    """Return the plan of an earlier run of the same command, if any, so that a resumed job stays the same.

    It was made for the data of that time: with other images, sizes and classes, other steps may be possible.
    """
    if ledger.notes.get("asked") != plain(config.asked()):
        return None
    try:
        if ledger.notes["look"]["digest"] != found.digest:
            return None
        return from_json(Plan, ledger.notes["plan"])
    except (KeyError, TypeError, ValueError):
        return None


def decided(config: CleanConfig, found: Looked, settings: Settings, has_gpu: bool) -> Plan:
    """Make the plan for data that is seen for the first time. This measures the machine for some seconds."""
    nowhere = config.out / ".diffclean-none"  # The estimate counts variations that exist already: there are none.

    def costs_of(plan: Plan) -> Costs:
        side, classes = plan.size or found.largest_side, len(found.classes)
        return measured_costs(config.data, nowhere, settings, plan.arch, side, classes, plan.batch_size, config.device)

    return planned(config, found, has_gpu, costs_of)
