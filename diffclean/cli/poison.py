"""`diffclean poison`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from diffclean.cli import frame
from diffclean.cli.train import failures
from diffclean.errors import ExitCode, UsageError


@frame.verb("poison", writes=True)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="A folder that does not exist yet.")
@click.option("--attack", help="badnets or blended.")
@click.option("--rate", type=float, help="Share of all images that are poisoned.  [default: 0.1]")
@click.option("--target", help="The target class, by its folder's name.")
@click.option("-p", "--parameter", multiple=True, metavar="NAME=VALUE", help="Of the attack, such as size=3.")
@click.option("--seed", type=int, help="Of the choice of images and of patterns.  [default: 1]")
@click.option(
    "--from",
    "from_",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="Put the trigger of this poison.json on every image, and keep the labels.",
)
def command(
    run: frame.Run,
    data: Path,
    out: Path,
    attack: str | None,
    rate: float | None,
    target: str | None,
    parameter: tuple[str, ...],
    seed: int | None,
    from_: Path | None,
) -> frame.Result:
    """Make a poisoned copy of DATA for red-team tests, with its manifest poison.json.

    Images of other classes get the trigger and move to the target class (dirty label). With --from, make a triggered
    copy of a test set instead. All images become lossless PNG, so that the format tells nothing.
    """
    from diffclean.attacks.manifest import read_manifest
    from diffclean.attacks.plan import dirty_label_plan, triggered_plan
    from diffclean.attacks.poison import check_out, write

    if from_ is not None:
        given = [
            name
            for name, value in {"--attack": attack, "--rate": rate, "--target": target, "--seed": seed}.items()
            if value is not None
        ] + (["--parameter"] if parameter else [])
        if given:
            raise UsageError(f"--from takes everything from the manifest; {', '.join(given)} cannot be given with it.")
        plan = triggered_plan(read_manifest(from_), data)
    elif attack is None or target is None:
        raise UsageError("Give --attack and --target, or --from with a poison.json.", "See: diffclean poison --help")
    else:
        chosen_rate, chosen_seed = 0.1 if rate is None else rate, 1 if seed is None else seed
        plan = dirty_label_plan(data, attack, chosen_rate, target, chosen_seed, _parameters(parameter))
    made = plan.manifest
    result: dict[str, Any] = {
        "out": out,
        "attack": made.attack,
        "parameters": dict(made.parameters),
        "target": made.target,
        "labels": made.labels,
        "images": len(plan.outputs),
        "poisoned": len(plan.chosen),
    }
    summary = f"{len(plan.outputs)} images, {len(plan.chosen)} of them with the {made.attack} trigger"
    if run.dry_run:
        check_out(out)
        return frame.Result(result, [f"{summary}, into {out}. Nothing was written."])
    with run.stopping() as stop:
        done = write(plan, out, run.progress, stop)
    result["images"] = len(done.images)
    result["poisoned"] = sum(row.poisoned for row in done.images)
    result["failed"] = done.failed
    lines = [f"{summary}, in {out}.", *failures(done.failed)]
    return frame.Result(result, lines, ExitCode.SOME_FAILED if done.failed else ExitCode.DONE)


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
