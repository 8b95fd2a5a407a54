"""What `diffclean clean` costs, step by step: seconds and floating-point operations.

    python benchmarks/cost.py --work WORK --data cifar10=TRAIN:TEST --count 10000

The job is carried out at its defaults, without a test set and a self-test, on data with BadNets at 10 %. The operations
of convolutions and linear layers are counted while it runs, forward and backward, those of the engine from the number
of its windows. What an optimiser computes is not counted.

Beside it stands what the paper's protocol takes for as many images, from the shapes of its networks: variations at 512
px by Stable Diffusion with 50 steps and guidance, and a teacher and a student, both ResNet-101 at 224 px, for 100
epochs. Nothing of this is run.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detection_cell import Cell
from detection_data import data_set
from detection_training import Training, poisoned_set
from full_size_models import of_sd_1
from operations import of_component, of_layers, of_module
from record import write_result

import diffclean as dc
from diffclean.families.registry import family_named
from diffclean.variation.settings import Settings, recipe_of
from diffclean.variation.variate import VariateResult
from diffclean.workflow import clean
from diffclean.workflow.runner import Runner

STEPS, SIDE, EPOCHS, CLASSIFIER_SIDE = 50, 512, 100, 224
"""The paper's protocol."""
_ATTACK, _RATE = "badnets", 0.1
_UNUSED = Training("", "", 0, 0, 0, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="cost", help="the name of the result file")
    parser.add_argument("--data", required=True, help="NAME=TRAIN:TEST, as in detection.py")
    parser.add_argument("--work", type=Path, required=True, help="the folder in which everything is kept")
    parser.add_argument("--count", type=int, default=10_000, help="how many training images are used")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cell = Cell(data_set(options.data, options.work, options.count), _ATTACK, _RATE, options.seed, "isolate")
    figures = measured(poisoned_set(cell, _UNUSED), options.work / "cost", options.seed)
    images = sum(cell.data.sizes.values())
    paper = protocol(images)
    write_result(options.name, {"seed": options.seed, "images": images, **figures, "protocol": paper}, cell.data.name)


def measured(data: Path, out: Path, seed: int) -> dict[str, Any]:
    """Seconds and operations of each step of the job."""
    shutil.rmtree(out, ignore_errors=True)
    counted: dict[str, int] = {}
    clean.Runner = counting(counted)  # type: ignore[misc] # the job makes its own
    result = dc.clean(data, out, self_test=False, seed=seed, progress=False)
    assert result.suspects is not None
    steps = [
        {"name": name, "seconds": round(seconds, 1), "flop": counted.get(name, 0)}
        for name, seconds in result.seconds.items()
    ]
    return {"attack": _ATTACK, "rate": _RATE, "listed": result.suspects.suspects, "steps": steps}


def counting(counted: dict[str, int]) -> type[Runner]:
    """A runner that adds the operations of each step to `counted`."""

    class Counting(Runner):
        def _timed(self, step: str, work: Callable[[], object]) -> None:
            def watched() -> None:
                with of_layers() as count:
                    made = work()
                windows = of_windows(made) if isinstance(made, VariateResult) else 0
                counted[str(step)] = counted.get(str(step), 0) + count() + windows

            super()._timed(step, watched)

    return Counting


def of_windows(made: VariateResult) -> int:
    """Operations of an engine of the family `micro` for the windows that it made."""
    directory = recipe_of(Settings()).directory
    assert directory is not None
    assert made.settings.steps is not None
    parts = family_named("micro").load(directory).components
    each = {name: of_component(part) for name, part in parts.items()}
    return made.windows * (each["image_encoder"] + made.settings.steps * each["unet"] + each["vae_decoder"])


def protocol(images: int) -> dict[str, int]:
    """Operations of the paper's protocol, computed from the shapes of its networks."""
    import timm
    import torch

    networks, latent = of_sd_1(), SIDE // 8
    unet = of_module(networks["unet"](), [torch.empty(1, 4, latent, latent), torch.empty(()), torch.empty(1, 1, 768)])
    encoder = of_module(networks["image_encoder"](), [torch.empty(1, 3, 224, 224)])
    decoder = of_module(networks["vae"]().decoder, [torch.empty(1, 4, latent, latent)])
    with torch.device("meta"):
        classifier = timm.create_model("resnet101", num_classes=10)
    side = CLASSIFIER_SIDE
    answer = of_module(classifier.eval(), [torch.empty(1, 3, side, side)])
    learn = 3 * answer  # forward, and the gradients of what comes in and of the weights
    return {
        "variations": images * (encoder + 2 * STEPS * unet + decoder),
        "teacher": images * EPOCHS * learn,
        "student": images * EPOCHS * (learn + answer),
    }


if __name__ == "__main__":
    main()
