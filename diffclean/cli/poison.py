"""`diffclean poison`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.poison import plan_of, poison
from diffclean.attacks.registry import ATTACKS
from diffclean.cli import frame
from diffclean.cli.failures import failures
from diffclean.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from diffclean.attacks.summary import PoisonResult


@frame.verb("poison", writes=True, door=poison)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A folder that does not exist yet.")
@click.option("--attack", help=f"One of {', '.join(ATTACKS)}.")
@click.option("--rate", type=float, help="Share of all images that are poisoned.  [default: 0.1]")
@click.option("--target", help="The target class, by its folder's name.")
@click.option(
    "--labels",
    type=click.Choice(["all-to-one", "all-to-all", "clean"]),
    help="Poisoned images get the target class; or the class after their own; or keep their label, and only images of "
    "the target class are poisoned.  [default: as in the attack's paper]",
)
@click.option(
    "--poison-target-class/--no-poison-target-class",
    default=None,
    help="all-to-one: poison images that are of the target class already, too.",
)
@click.option(
    "--cover-rate",
    type=float,
    help="Share of all images that get the trigger and keep their label.  [default: as in the attack's paper]",
)
@click.option("-p", "--parameter", multiple=True, metavar="NAME=VALUE", help="Of the attack, such as size=3.")
@click.option("--seed", type=int, help="Of the choice of images and of patterns.  [default: 1]")
@click.option(
    "--from",
    "from_",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="Put the trigger of this poison.json on every image, and keep the labels.",
)
def command(run: frame.Run, data: Path, out: Path, from_: Path | None, **options: Any) -> frame.Result:
    """Make a poisoned copy of DATA for red-team tests, with its manifest poison.json.

    Some images get the trigger and, unless labels are clean, move to the folder of another class. With --from, make a
    triggered copy of a test set instead. All images become lossless PNG, so that the format tells nothing.

    docs/attacks.md lists the attacks with their parameters.
    """
    options["parameters"] = _parameters(options.pop("parameter"))
    if run.dry_run:
        from diffclean.attacks.poison import check_out
        from diffclean.attacks.summary import planned

        plan = plan_of(data, from_=from_, **options)
        check_out(out, data)
        result = planned(plan, out)
        return frame.Result(result, [f"{_summary(result)}, into {out}. Nothing was written."])
    with run.stopping() as stop:
        result = poison(data, out, from_=from_, **options, progress=run.progress, stop=stop)
    lines = [f"{_summary(result)}, in {out}.", *failures(result.failed or {})]
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _summary(result: PoisonResult) -> str:
    covers = f" and {result.covers} as covers" if result.covers else ""
    return f"{result.images} images, {result.poisoned} of them with the {result.attack} trigger{covers}"


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """`size=3` to {"size": 3}: values as JSON has them, and anything else as text."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--parameter should be NAME=VALUE, not {text!r}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
