"""`diffclean evaluate`."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffclean.api.evaluate import evaluate, evaluate_variations, is_variations
from diffclean.cli import frame
from diffclean.cli.classifier import classifier_options
from diffclean.cli.failures import failures
from diffclean.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation, Undefended
    from diffclean.evaluation.variation_run import RunEvaluation

NAMES = {
    "clean_accuracy": "Clean accuracy (CA)",
    "attack_success_rate": "Attack success rate (ASR)",
    "robust_accuracy": "Robust accuracy (RA)",
    "benign_landing": "Untriggered images that land on the target",
}


@frame.verb("evaluate", door=evaluate)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--poison",
    type=click.Path(path_type=Path),
    metavar="MANIFEST",
    help="The poison manifest (poison.json) of the training set. The trigger is put on the images of DATA in memory, "
    "and ASR and RA are measured too, and how many images land on the target class without the trigger.",
)
@click.option(
    "--undefended",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="The classifier before the defence, for comparison; adds DER. Needs --poison.",
)
@classifier_options("classifier", former="teacher")
@click.option(
    "--device",
    help="The device to compute on: cpu, cuda, or one GPU such as cuda:1.  [default: CUDA where it works, else the "
    "CPU]",
)
def command(
    run: frame.Run,
    model: Path,
    data: Path,
    poison: Path | None,
    undefended: Path | None,
    device: str | None,
    **options: Any,
) -> frame.Result:
    """Measure the classifier MODEL on DATA, a clean test set that has one folder of images for each class.

    MODEL is a classifier that `train` or `distill` wrote, or a state dict (.pt, .pth, .safetensors) or an .onnx file
    from elsewhere, for which the --classifier options state what the file does not. With --undefended, these options
    describe the undefended classifier.

    If DATA is an output folder of `variate`, it is compared with its source: label preservation is measured and, if the
    source was poisoned by `diffclean poison`, trigger survival. Every rate comes with its 95 % Wilson interval.
    """
    if is_variations(data):
        if poison or undefended:
            raise UsageError(
                f"{data} is an output folder of variate; `poison` and `undefended` can be used with test sets only.",
                "Leave them out, or name a test set.",
            )
        return _of_run(evaluate_variations(model, data, device=device, progress=run.progress, **options))
    options |= {"poison": poison, "undefended": undefended, "device": device}
    result = evaluate(model, data, progress=run.progress, **options)
    lines = _rates(result)
    if result.undefended:
        lines += [f"undefended: {line}" for line in _rates(result.undefended)]
        if result.defense_effectiveness is not None and not math.isnan(result.defense_effectiveness):
            lines.append(f"Defence effectiveness (DER): {result.defense_effectiveness:.3f}")
    if result.fired is False:
        lines += _silent(result, ["evaluate", model, data, "--poison", poison, "--undefended", "TEACHER"])
    lines += failures(result.failed)
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _silent(result: Evaluation, compared: list[Any]) -> list[str]:
    """What an ASR below 80 % says, with the command that would say more about a classifier that was defended."""
    counted = (result.undefended or result).attack_success_rate
    if not (counted and counted.count):
        return ["DATA has only images of the target class, so it cannot be measured whether the attack works."]
    if result.undefended is not None:
        return [
            "The attack did not fire: its ASR on the undefended model is below 80 %. Do not count this as a defence."
        ]
    return [
        "The ASR is below 80 %. Either the attack never fired, or a defence stopped it: this classifier alone cannot "
        "show which. Name the classifier before the defence to compare them:",
        f"    {shlex.join(['diffclean', *map(str, compared)])}",
    ]


def _of_run(result: RunEvaluation) -> frame.Result:
    lines = []
    if kept := result.label_preservation:
        lines += [
            f"Label preservation: {kept.preservation:.3f}",
            f"  on originals: {kept.originals}",
            f"  on variations: {kept.variations}",
        ]
    lines += _survival(result)
    lines += failures(result.failed)
    return frame.Result(result, lines, ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _survival(result: RunEvaluation) -> list[str]:
    success, left = result.attack_success_rate, result.trigger_survival
    if success is None or left is None:
        return []
    if not success.count:
        return [
            "Trigger survival cannot be measured here, because every triggered image is of the target class already "
            "(clean labels). Make a triggered test set and run variate on it: diffclean poison TEST --from poison.json "
            "-o TRIGGERED"
        ]
    survival = "unknown, because every image has the trigger"
    if not math.isnan(left.survival):
        survival = f"{100 * left.survival:.1f} %"
    lines = [
        f"ASR on the source's triggered images: {success}",
        f"Trigger survival: {survival}",
        f"  variations of triggered images predicted as the target class: {left.triggered}",
        f"  variations of untriggered images predicted as the target class: {left.untriggered}",
    ]
    if not result.fired:
        lines.append(
            "The attack did not fire on this model (its ASR is below 80 %), so trigger survival has no meaning here."
        )
    return lines


def _rates(measured: Evaluation | Undefended) -> list[str]:
    found = {title: getattr(measured, name) for name, title in NAMES.items()}
    return [f"{title}: {rate}" for title, rate in found.items() if rate is not None]
