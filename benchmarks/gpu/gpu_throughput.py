"""Compare full-size `sd-image-variations` with diffusers' stock pipeline in images per second; show where time goes.

    python benchmarks/gpu/gpu_throughput.py --work FOLDER_WITH_10_GB_FREE
    python benchmarks/gpu/gpu_throughput.py --work FOLDER --toy      # everything, with a small model, on any machine

Stock is `StableDiffusionImageVariationPipeline`, run eagerly in half precision, handed tensors that are prepared and
giving tensors back. Ours is the sampler on an engine, from uint8 pixels to uint8 pixels. Both have random weights, on
which speed does not depend, and the same batch, steps and guidance. They take turns within a run; ratios are medians
over the turns. Runtimes that are not installed are left out, and the reason is recorded.

The arithmetic bound is what the networks multiply and add, counted, over the largest rate at which this machine
multiplies large matrices, measured in the same run.

Every piece is kept in WORK as soon as it is made, so a command that was stopped continues where it was.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_harness import add_arguments, measured
from gpu_levers import SHIPPED, Levers, TorchWithLevers
from gpu_profile import profile_of
from operations import of_component

from diffclean.engine.manifest import ComponentEntry, EngineManifest, model_hashes, read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.export.export import Request
from diffclean.export.export import export as exported
from diffclean.export.onnx import example_inputs
from diffclean.export.opening import compiling
from diffclean.families.registry import family_named
from diffclean.runtime.base import Runtime
from diffclean.runtime.choose import Engine, open_runtime
from diffclean.runtime.probe import probe_one
from diffclean.variation.sampler import Sampler, SamplerSettings

FAMILY = "sd-image-variations"
NEEDED = ("image_encoder", "unet", "vae_decoder")
"""Components of a run from pure noise."""
INTERVAL = (0.0, 0.7)
"""Guidance at these noise levels only, as a lever."""


@dataclass(frozen=True)
class Setting:
    """What stock and ours are run with."""

    batch: int
    steps: int
    guidance: float
    interval: tuple[float, float] = (0.0, 1.0)


def main() -> int:
    options = arguments()
    settings = {name: getattr(options, name) for name in ("toy", "batch", "steps", "guidance")}
    settings |= {"device": device_name(), "precision": precision()}
    pieces = plan(options)
    basis = [name for name in pieces if name.split()[0] in ("model", "peak", "work")]
    if options.only:
        pieces = {name: make for name, make in pieces.items() if name in basis or name.split()[0] in options.only}
    return measured(options, settings, pieces, lambda made: {"pieces": made}, "no images", basis)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, "gpu_throughput")
    parser.add_argument("--toy", action="store_true", help="a small model in place of the full-size one")
    parser.add_argument("--sizes", type=int, nargs="+", help="in pixels; the first is the levers'")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="of the lever")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--curve", type=int, nargs="+", default=[1, 2, 4, 8, 20, 50], help="steps")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "torch-compile", "onnxruntime-cuda", "tensorrt"])
    parser.add_argument("--compiler", default="inductor", help="backend of torch.compile, of the lever")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=["compare", "lever", "profile"], help="a part of the pieces")
    options = parser.parse_args()
    options.sizes = options.sizes or ([64, 32] if options.toy else [512, 256])
    return options


def plan(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Every piece, in order."""
    largest = options.sizes[0]
    pieces: dict[str, Callable[[], Any]] = {"model": partial(made_model, options), "peak": partial(peak, options.toy)}
    pieces |= {f"work {size}": partial(work, options, size) for size in options.sizes}
    for size in options.sizes:
        pieces[f"compare {size}"] = partial(compared, options, size)
    for name, (chosen, settings) in all_levers(options).items():
        pieces[f"lever {name}"] = partial(lever, options, largest, chosen, settings)
    for name in ("stock", "as shipped", "compiled"):
        pieces[f"profile {name}"] = partial(profiled, options, largest, name)
    return pieces


def all_levers(options: argparse.Namespace) -> dict[str, tuple[Levers, list[Setting]]]:
    """Each lever alone: what makes torch quicker on top of none, what changes the work on top of what is shipped.

    Returns:
        Name -> what the modules are run with, and the settings that are timed.
    """
    usual = usual_setting(options)
    both = [usual, replace(usual, batch=1)]
    guidance = [usual, replace(usual, interval=INTERVAL), replace(usual, guidance=1.0)]
    return {
        "none": (Levers(), both),
        "channels_last": (Levers(channels_last=True), both),
        "CUDA graph": (Levers(cuda_graph=True), both),
        "compile": (Levers(compiler=options.compiler), both),
        "cuDNN benchmark": (Levers(cudnn_benchmark=True), both),
        "as shipped": (SHIPPED, both),
        "all": (replace(SHIPPED, compiler=options.compiler, cudnn_benchmark=True), both),
        "VAE in fp32": (replace(SHIPPED, decoder_in_fp32=True), both),
        "batch": (SHIPPED, [replace(usual, batch=batch) for batch in options.batches]),
        "guidance": (SHIPPED, guidance),
    }


def usual_setting(options: argparse.Namespace) -> Setting:
    return Setting(options.batch, options.steps, options.guidance)


def device_name() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> str:
    return "fp16" if torch.cuda.is_available() else "fp32"


def made_model(options: argparse.Namespace) -> dict[str, Any]:
    """A model directory with random weights in `work/model`."""
    if (options.work / "model" / "model_index.json").exists():  # it is written last
        return {"family": FAMILY, "small": options.toy}
    if options.toy:
        sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
        from small_models import saved

        saved(FAMILY, options.work / "model")
        return {"family": FAMILY, "small": True}
    import export_full_size

    options.work.mkdir(parents=True, exist_ok=True)
    export_full_size.make(FAMILY, options.work, options)
    return {"family": FAMILY, "small": False}


def peak(toy: bool) -> dict[str, float]:
    """TFLOP/s of one large matrix product, by type."""
    side = 256 if toy else 8192
    found = {}
    for dtype in (torch.float16, torch.bfloat16) if torch.cuda.is_available() else (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device_name()).to(dtype) for _ in range(2))
        calls = rate_of(partial(torch.mm, a, b), 0.1 if toy else 2.0)
        found[str(dtype).removeprefix("torch.")] = 2 * side**3 * calls / 1e12
    return found


def work(options: argparse.Namespace, size: int) -> dict[str, int]:
    """Floating-point operations of each component for one image."""
    model = family_named(FAMILY).load(options.work / "model", size)
    return {name: of_component(model.components[name]) for name in NEEDED}


class Stock:
    """Diffusers' own pipeline."""

    def __init__(self, options: argparse.Namespace, size: int) -> None:
        from diffusers import (
            AutoencoderKL,
            DDIMScheduler,
            StableDiffusionImageVariationPipeline,
            UNet2DConditionModel,
        )
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        folder, self.size = options.work / "model", size
        self.dtype = torch.float16 if precision() == "fp16" else torch.float32
        self.pipeline = StableDiffusionImageVariationPipeline(
            vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=self.dtype),
            image_encoder=CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder"),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=self.dtype),
            scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"),
            safety_checker=None,
            feature_extractor=CLIPImageProcessor.from_pretrained(folder / "feature_extractor"),
            requires_safety_checker=False,
        ).to(device_name(), self.dtype)
        self.pipeline.set_progress_bar_config(disable=True)

    def run(self, setting: Setting) -> None:
        """One batch, until its pixels are on the CPU."""
        side = self.pipeline.image_encoder.config.image_size
        images = torch.zeros((setting.batch, 3, side, side), device=device_name(), dtype=self.dtype)
        made = self.pipeline(
            image=images,
            height=self.size,
            width=self.size,
            num_inference_steps=setting.steps,
            guidance_scale=setting.guidance,
            output_type="pt",
        ).images
        (made * 255).round().to(torch.uint8).cpu()

    def step(self, batch: int) -> None:
        """One call of the denoiser."""
        unet = self.pipeline.unet
        side = self.size // self.pipeline.vae_scale_factor
        shapes = ((batch, unet.config.in_channels, side, side), (batch, 1, unet.config.cross_attention_dim))
        sample, context = (torch.zeros(shape, device=device_name(), dtype=self.dtype) for shape in shapes)
        with torch.no_grad():
            unet(sample, 500, encoder_hidden_states=context)


class Ours:
    """The sampler on a runtime."""

    def __init__(self, runtime: Runtime, manifest: EngineManifest) -> None:
        self.engine = Engine(Path(), manifest, runtime)
        self.manifest = manifest
        self._samplers: dict[Setting, Sampler] = {}

    def run(self, setting: Setting) -> None:
        """One batch, until its pixels are on the CPU."""
        if setting not in self._samplers:
            asked = SamplerSettings(setting.steps, 1.0, setting.guidance, "ddim", setting.interval)
            self._samplers[setting] = Sampler(self.engine, asked)
        size = self.manifest.image_size
        pixels = torch.zeros(setting.batch, size, size, 3, dtype=torch.uint8)
        self._samplers[setting].generate(pixels, range(setting.batch))

    def step(self, batch: int) -> None:
        """One call of the denoiser."""
        inputs = example_inputs(self.manifest.components["unet"].inputs, batch)
        self.engine.call("unet", {name: value.to(self.engine.runtime.device) for name, value in inputs.items()})


def manifest_of(options: argparse.Namespace, size: int) -> EngineManifest:
    """As an export would write it, without the graphs, which the runtime torch does not need."""
    model = family_named(FAMILY).load(options.work / "model", size)
    return EngineManifest(
        family=FAMILY,
        source={"path": str(options.work / "model"), "files": model_hashes(options.work / "model")},
        image_size=size,
        scheduler=dict(model.scheduler),
        components={name: ComponentEntry(each.inputs, each.outputs) for name, each in model.components.items()},
        files={},
        tools={},
        options={"precision": precision(), "image_size": size},
    )


def with_levers(options: argparse.Namespace, size: int, chosen: Levers) -> Ours:
    manifest = manifest_of(options, size)
    return Ours(TorchWithLevers(manifest, precision(), chosen), manifest)


def on_runtime(options: argparse.Namespace, size: int, name: str) -> Ours:
    """On a runtime of diffclean; where it needs the graphs, they are exported first."""
    if name.startswith("torch"):
        manifest = manifest_of(options, size)
        return Ours(open_runtime(name, options.work, manifest, precision()), manifest)
    if not (status := probe_one(name)).usable:
        raise DiffcleanError(status.reason)
    place = options.work / f"engine-{size}"
    exported(Request(str(options.work / "model"), place, precision=precision(), image_size=size))
    return Ours(
        open_runtime(name, place, read_engine_manifest(place), precision(), make_ready=compiling(options.batch)),
        read_engine_manifest(place),
    )


def compared(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """Images per second of stock and of ours, over steps; they take turns."""
    runners: dict[str, Stock | Ours] = {"stock": Stock(options, size)}
    left_out = {}
    for name in options.runtimes:
        try:
            runners[name] = on_runtime(options, size, name)
        except Exception as error:  # whatever it is, the others are still worth measuring
            left_out[name] = f"{type(error).__name__}: {error}"
    curve = []
    for steps in options.curve:
        setting = replace(usual_setting(options), steps=steps)
        working = {}
        for name, runner in runners.items():
            try:
                runner.run(setting)  # compiles and records
                working[name] = runner
            except Exception as error:
                left_out[name] = f"{type(error).__name__}: {error}"
        rounds = [
            {name: images_a_second(runner, setting, options.seconds, warm=True) for name, runner in working.items()}
            for _ in range(options.rounds)
        ]
        medians = {name: statistics.median(each[name] for each in rounds) for name in working}
        ratios = {name: statistics.median(each[name] / each["stock"] for each in rounds) for name in working}
        curve.append({"steps": steps, "images_per_second": medians, "over_stock": ratios})
    return {"batch": options.batch, "guidance": options.guidance, "curve": curve, "left_out": left_out}


def lever(options: argparse.Namespace, size: int, chosen: Levers, settings: list[Setting]) -> list[dict[str, Any]]:
    """Images per second under some levers."""
    with chosen.applied():
        runner = with_levers(options, size, chosen)
        return [
            {**asdict(setting), "images_per_second": images_a_second(runner, setting, options.seconds)}
            for setting in settings
        ]


def profiled(options: argparse.Namespace, size: int, name: str) -> dict[str, Any]:
    """Where the time of one step goes."""
    runner: Stock | Ours
    if name == "stock":
        runner = Stock(options, size)
    else:
        runner = with_levers(options, size, replace(SHIPPED, compiler=options.compiler if name == "compiled" else ""))
    batch = options.batch * (2 if options.guidance != 1 else 1)
    runner.step(batch)
    return {"batch": batch, **profile_of(lambda: runner.step(batch))}


def images_a_second(runner: Stock | Ours, setting: Setting, seconds: float, warm: bool = False) -> float:
    """Of whole batches, one after the other."""
    return setting.batch * rate_of(lambda: runner.run(setting), seconds, warm)


def rate_of(call: Callable[[], Any], seconds: float, warm: bool = False) -> float:
    """Calls per second, over at least two calls and so many seconds; the first call is not counted, unless `warm`."""
    if not warm:
        call()
    synchronized()
    started, calls = time.monotonic(), 0
    while calls < 2 or time.monotonic() - started < seconds:
        call()
        calls += 1
        synchronized()
    return calls / (time.monotonic() - started)


def synchronized() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
