"""`diffclean.poison`."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, following, path_of
from diffclean.errors import UsageError
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.attacks.plan import PoisonPlan
    from diffclean.attacks.summary import PoisonResult


def poison(
    data: AnyPath,
    out: AnyPath,
    attack: str | None = None,
    *,
    rate: float | None = None,
    target: str | None = None,
    labels: str | None = None,
    poison_target_class: bool | None = None,
    cover_rate: float | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int | None = None,
    from_: AnyPath | None = None,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> PoisonResult:
    """Make a poisoned copy of a data set for red-team tests, with its manifest poison.json.

    Args:
        data: a folder with one folder of images a class.
        out: a folder that does not exist yet.
        attack: its name, see docs/attacks.md.
        rate: share of all images that are poisoned; None: 0.1.
        target: the target class.
        labels: "all-to-one", "all-to-all" or "clean"; None: as in the attack's paper.
        poison_target_class: with "all-to-one": poison images of the target class too.
        cover_rate: share of all images that get the trigger and keep their label; None: as in the attack's paper.
        parameters: of the attack, such as {"size": 3}.
        seed: of the choice of images and of patterns; None: 1.
        from_: a poison.json, whose trigger is put on every image of `data`, a test set, in place of an attack.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the work to end.

    Raises:
        UsageError: a setting makes no sense.
        DiffcleanError: the data cannot be used, or `out` exists.
        Interrupted: `stop` was set; nothing is left behind.
    """
    options: dict[str, Any] = {
        "rate": rate,
        "target": target,
        "labels": labels,
        "poison_target_class": poison_target_class,
        "cover_rate": cover_rate,
        "parameters": parameters,
        "seed": seed,
    }
    from diffclean.attacks.poison import write
    from diffclean.attacks.summary import written

    plan = plan_of(data, attack, from_, **options)
    place = path_of(out)
    with following(progress) as shown:
        return written(write(plan, place, shown, stop), place)


def plan_of(data: AnyPath, attack: str | None, from_: AnyPath | None, **options: Any) -> PoisonPlan:
    """What will be written: an attack of one's own, or the trigger of a manifest.

    Raises:
        UsageError: neither or both are given, or a setting makes no sense.
        DiffcleanError: the data cannot be used.
    """
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.attacks.plan import training_plan, triggered_plan

    if from_ is None:
        if attack is None:
            raise UsageError("Give `attack`, or `from_` with a poison.json.", "See: diffclean poison --help")
        return training_plan(path_of(data), attack, **options)
    given = [f"`{name}`" for name, value in ({"attack": attack} | options).items() if value not in (None, {})]
    if given:
        raise UsageError(f"`from_` takes everything from the manifest; {', '.join(given)} cannot be given with it.")
    return triggered_plan(read_poison_manifest(path_of(from_)), path_of(data))
