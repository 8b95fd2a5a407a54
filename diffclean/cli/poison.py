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
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="The folder to write; it must not exist."
)
@click.option("--attack", help=f"The attack, one of {', '.join(ATTACKS)}.")
@click.option("--rate", type=float, help="The poison rate: the share of all images that is poisoned.  [default: 0.1]")
@click.option("--target", help="The target class, given as the name of its folder.")
@click.option(
    "--labels",
    type=click.Choice(["all-to-one", "all-to-all", "clean"]),
    help="How poisoned images are labelled: all-to-one gives them the target class, all-to-all the class after their "
    "own; with clean they keep their label and only images of the target class are poisoned.  [default: as in the "
    "attack's paper]",
)
@click.option(
    "--poison-target-class/--no-poison-target-class",
    default=None,
    help="With all-to-one labels, whether images that are of the target class already may be poisoned too.  [default: "
    "--no-poison-target-class]",
)
@click.option(
    "--cover-rate",
    type=float,
    help="The share of all images that get the trigger and keep their label (covers).  [default: as in the attack's "
    "paper]",
)
@click.option(
    "-p", "--parameter", multiple=True, metavar="NAME=VALUE", help="A parameter of the attack, for example size=3."
)
@click.option(
    "--seed", type=int, help="The seed from which images to poison and random patterns are drawn.  [default: 1]"
)
@click.option(
    "--from",
    "from_",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="Put the trigger of this poison.json on every image of DATA and keep the labels, in place of --attack.",
)
def command(run: frame.Run, data: Path, out: Path, from_: Path | None, **options: Any) -> frame.Result:
    """Make a poisoned copy of DATA for red-team tests, with its poison manifest poison.json.

    Some images get the trigger and, unless labels are clean, move to the folder of another class. With --from, the
    result is a triggered copy of a test set instead. All images are written as lossless PNG, so that the file format
    does not reveal which ones are poisoned.

    docs/attacks.md describes the attacks and their parameters.
    """
    options["parameters"] = _parameters(options.pop("parameter"))
    if run.dry_run:
        from diffclean.attacks.poison import check_out
        from diffclean.attacks.summary import planned

        plan = plan_of(data, from_=from_, **options)
        check_out(out, data)
        result = planned(plan, out)
        return frame.Result(result, [f"{_summary(result)}, would be written to {out}. Nothing was written."])
    with run.stopping() as stop:
        result = poison(data, out, from_=from_, **options, progress=run.progress, stop=stop)
    lines = [f"{_summary(result)}, in {out}.", *failures(result.failed or {})]
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _summary(result: PoisonResult) -> str:
    covers = f" and {result.covers} as covers" if result.covers else ""
    return f"{result.images} images, {result.poisoned} of them with the {result.attack} trigger{covers}"


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Turn `size=3` into {"size": 3}. A value that is JSON is read as JSON, anything else is text."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--parameter must be NAME=VALUE, not {text!r}.", "For example: --parameter size=3")
        try:
            found[name] = json.loads(value)
        except (ValueError, RecursionError):
            found[name] = value
    return found
