"""Quantise the denoiser of `micro` to INT8 by NNCF, and compare it with fp32 and bf16 on OpenVINO: pictures and speed.

    pip install nncf
    taskset -c 0 python benchmarks/int8_micro.py --calibrate TRUSTED_IMAGES --images OTHER_IMAGES

Post-training quantisation measures the range of every activation on what the denoiser was really given for
`--calibrate`, which must be trusted: whoever chooses these images chooses what is clipped. Everything else is measured
on `--images` with one thread. All forms get the same noise, so a difference to fp32 is the error of the form. The PSNR
between two fp32 variations of an image with different seeds says how much the pictures differ anyhow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_result
from torch import Tensor

from diffclean.data.decode import decode
from diffclean.data.fit import Fit, to_square
from diffclean.data.folder import ImageFolder
from diffclean.data.pixels import Pixels
from diffclean.engine.manifest import GRAPH_NAME
from diffclean.engine.openvino import openvino_core
from diffclean.runtime.base import Runtime
from diffclean.runtime.choose import Engine
from diffclean.variation.sampler import Sampler, SamplerSettings
from diffclean.variation.settings import Settings, open_for

UNET = "unet"
Inputs = dict[str, NDArray[Any]]


class WithUNet:
    """A runtime in which another compiled model, or a function that records its inputs, stands for the denoiser."""

    name, device = "openvino", "cpu"

    def __init__(self, others: Runtime, unet: Callable[[Inputs], NDArray[np.float32]], precision: str) -> None:
        self._others, self._unet, self.precision = others, unet, precision

    def run(self, component: str, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """See `Runtime`."""
        if component != UNET:
            return self._others.run(component, inputs)
        return (torch.from_numpy(self._unet({name: tensor.numpy() for name, tensor in inputs.items()})),)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", type=Path, required=True, help="trusted images on which ranges are measured")
    parser.add_argument("--images", type=Path, required=True, help="other images, on which everything is compared")
    parser.add_argument("--count", type=int, default=256, help="the number of images of each kind")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    opened = open_for(Settings(engine="micro", runtime="openvino", precision="fp32", batch=options.batch), threads=1)
    engine, sampling = opened.engine, opened.settings.sampler
    trusted, pictures = (squares(folder, options.count, engine) for folder in (options.calibrate, options.images))
    forms = compiled_forms(engine, recorded(engine, sampling, trusted, options))
    figures: dict[str, Any] = {
        "engine": engine.identity,
        "strength": sampling.strength,
        "scheduler": sampling.scheduler,
        "batch": options.batch,
        "images": len(pictures),
        "threads": 1,
        "library": library(),
        "bytes": {name: size for name, (_, size) in forms.items()},
        "steps": {
            str(steps): compared(engine, forms, with_steps(sampling, steps), pictures, options)
            for steps in options.steps
        },
    }
    write_result(
        "int8_micro", figures, f"{options.calibrate.name} for the ranges; {options.images.name}; centre squares, 64 px"
    )


def library() -> str:
    """The version of NNCF."""
    from importlib.metadata import version

    return f"nncf {version('nncf')}"


def with_steps(sampling: SamplerSettings, steps: int) -> SamplerSettings:
    return SamplerSettings(steps, sampling.strength, sampling.guidance, sampling.scheduler)


def squares(folder: Path, count: int, engine: Engine) -> Pixels:
    """(N, S, S, 3) uint8: the centre squares of images that are spread evenly over a folder."""
    source = ImageFolder(folder)
    items = source.items()[:: max(1, len(source.items()) // count)][:count]
    return np.stack([to_square(decode(source.read(item)), engine.manifest.image_size, Fit.CROP)[0] for item in items])


def variations(sampler: Sampler, pictures: Pixels, batch: int, seed: int = 0) -> Pixels:
    """One variation of each picture, whole batches only; the seeds count from `seed`."""
    made = [
        sampler.generate(torch.from_numpy(pictures[first : first + batch]), range(seed + first, seed + first + batch))
        for first in range(0, len(pictures) - batch + 1, batch)
    ]
    return np.concatenate([pixels.numpy() for pixels, _ in made])


def recorded(engine: Engine, sampling: SamplerSettings, trusted: Pixels, options: argparse.Namespace) -> list[Inputs]:
    """What the denoiser is given for the trusted images, at every number of steps."""
    seen: list[Inputs] = []

    def unet(inputs: Inputs) -> NDArray[np.float32]:
        seen.append({name: value.copy() for name, value in inputs.items()})
        (out,) = engine.runtime.run(UNET, {name: torch.from_numpy(value) for name, value in inputs.items()})
        return out.numpy()

    watched = Engine(engine.directory, engine.manifest, WithUNet(engine.runtime, unet, "fp32"))
    for steps in options.steps:
        variations(Sampler(watched, with_steps(sampling, steps)), trusted, options.batch)
    return seen


def compiled_forms(engine: Engine, seen: Sequence[Inputs]) -> dict[str, tuple[Any, int]]:
    """Each form of the denoiser, compiled for one thread, with the bytes of its weights."""
    import nncf

    core = openvino_core()
    path = engine.directory / UNET / GRAPH_NAME
    whole = core.read_model(path)
    quantised = {
        "int8": nncf.quantize(core.read_model(path), nncf.Dataset(seen), subset_size=len(seen)),
        "int8, transformer": nncf.quantize(
            core.read_model(path), nncf.Dataset(seen), subset_size=len(seen), model_type=nncf.ModelType.TRANSFORMER
        ),
        "int8, ends kept": nncf.quantize(
            core.read_model(path),
            nncf.Dataset(seen),
            subset_size=len(seen),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=ends(whole)),
        ),
    }
    models = {"fp32": (whole, "f32"), "bf16": (whole, "bf16")} | {name: (m, "bf16") for name, m in quantised.items()}
    return {
        name: (core.compile_model(model, "CPU", config(hint)).create_infer_request(), weights(model))
        for name, (model, hint) in models.items()
    }


def config(hint: str) -> dict[str, Any]:
    """As `runtime.openvino` compiles, with one thread."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": hint}


def ends(model: Any) -> list[str]:
    """The first and the last convolution, whose errors are seen as they are."""
    convolutions = [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    return [convolutions[0], convolutions[-1]]


def weights(model: Any) -> int:
    """The bytes of all constants."""
    return sum(op.get_byte_size() for op in model.get_ordered_ops() if op.get_type_name() == "Constant")


def compared(
    engine: Engine,
    forms: Mapping[str, tuple[Any, int]],
    sampling: SamplerSettings,
    pictures: Pixels,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The pictures of each form against those of fp32, and its speed; rounds alternate between the forms."""
    samplers = {name: sampler_of(engine, request, sampling, name) for name, (request, _) in forms.items()}
    made = {name: variations(sampler, pictures, options.batch) for name, sampler in samplers.items()}
    other_seeds = variations(samplers["fp32"], pictures, options.batch, seed=10**6)
    rates: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(options.rounds):
        for name, sampler in samplers.items():
            started = time.monotonic()
            variations(sampler, pictures[: 2 * options.batch], options.batch)
            rates[name].append(2 * options.batch / (time.monotonic() - started))
    found = {
        name: {
            "psnr_to_fp32": psnr(made["fp32"], each) if name != "fp32" else None,
            "psnr_to_source": psnr(pictures[: len(each)], each),
            "grey_levels_off": float(np.abs(each.astype(int) - made["fp32"]).mean()),
            "images_per_second": statistics.median(rates[name]),
            "to_bf16": statistics.median(a / b for a, b in zip(rates[name], rates["bf16"], strict=True)),
        }
        for name, each in made.items()
    }
    found["fp32, other seeds"] = {"psnr_to_fp32": psnr(made["fp32"], other_seeds)}
    print(f"{sampling.steps} steps:", *(f"{name}: {each}" for name, each in found.items()), sep="\n  ", flush=True)
    return found


def sampler_of(engine: Engine, request: Any, sampling: SamplerSettings, name: str) -> Sampler:
    def unet(inputs: Inputs) -> NDArray[np.float32]:
        results = request.infer(inputs, share_inputs=True, share_outputs=False)
        made: NDArray[np.float32] = next(iter(results.values()))
        return made

    return Sampler(Engine(engine.directory, engine.manifest, WithUNet(engine.runtime, unet, name)), sampling)


def psnr(a: Pixels, b: Pixels) -> float:
    """The median over the pictures, in decibels."""
    errors = ((a.astype(float) - b) ** 2).mean(axis=(1, 2, 3))
    return float(np.median(10 * np.log10(255**2 / np.maximum(errors, 1e-9))))


if __name__ == "__main__":
    main()
