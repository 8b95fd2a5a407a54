"""`diffclean.poison`."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, data_path_of, following, path_of
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
    """Make a poisoned copy of a data set for red-team tests, with its poison manifest poison.json.

    Args:
        data: a folder that has one folder of images for each class.
        out: the folder to write; it must not exist.
        attack: the name of the attack, see docs/attacks.md.
        rate: the poison rate, the share of all images that is poisoned; None stands for 0.1.
        target: the target class.
        labels: "all-to-one", "all-to-all" or "clean"; None stands for that of the attack's paper.
        poison_target_class: whether images of the target class may be poisoned too, with "all-to-one".
        cover_rate: the share of all images that get the trigger and keep their label; None stands for that of the
            attack's paper.
        parameters: the parameters of the attack, such as {"size": 3}.
        seed: the seed from which images to poison and random patterns are drawn; None stands for 1.
        from_: a poison.json whose trigger is put on every image of `data`, a test set, in place of an attack.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the work.

    Raises:
        UsageError: a setting is invalid.
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
    """What will be written: an attack with its own settings, or the trigger of a manifest.

    Raises:
        UsageError: neither or both are given, or a setting is invalid.
        DiffcleanError: the data cannot be used.
    """
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.attacks.plan import training_plan, triggered_plan

    if from_ is None:
        if attack is None:
            raise UsageError("Give `attack`, or `from_` with a poison.json.", "See: diffclean poison --help")
        return training_plan(data_path_of(data), attack, **options)
    given = [f"`{name}`" for name, value in ({"attack": attack} | options).items() if value not in (None, {})]
    if given:
        raise UsageError(f"`from_` takes everything from the manifest; {', '.join(given)} cannot be given with it.")
    return triggered_plan(read_poison_manifest(path_of(from_)), data_path_of(data))
