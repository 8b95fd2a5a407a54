"""Models of the real size, with random weights, exported in fp16 and compiled: how long, how much memory, how large.

    python benchmarks/export_full_size.py --work FOLDER_WITH_15_GB_FREE
    python benchmarks/export_full_size.py --work FOLDER_WITH_20_GB_FREE --families sdxl-img2img flux-redux \
        --steps make export --minutes 15 --gib 20 --name export_full_size_sdxl

No weights are fetched: the networks are made here in the shapes of the published ones (`full_size_models`), since time,
memory and sizes depend on nothing else. The export is `diffclean export`, as it is typed. Every step is a process of
its own, so that its peak is its own: the largest resident set, pages of mapped files included. Then one denoising step
and one decode at full size run from the exported graphs, beside torch in fp32 from the model; the largest difference is
given relative to the largest value.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from full_size_models import NOTES, SIZES, saved
from record import write_result

GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="a folder for the models; emptied at the end")
    parser.add_argument("--families", nargs="+", default=["sd-image-variations", "stable-unclip"])
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--batch", default="1:4:4", help="the batch sizes of the compiled engines")
    parser.add_argument("--keep", action="store_true", help="do not remove the models and engines")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="what is measured, in order")
    parser.add_argument("--minutes", type=float, default=10, help="the limit of time for an export")
    parser.add_argument("--gib", type=float, default=12, help="the limit of memory for an export")
    parser.add_argument("--name", default="export_full_size", help="the name of the result file")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](options.families[0], options.work, options)
        return
    figures = {}
    for family in options.families:
        work = options.work / family
        figures[family] = measured(family, work, options)
        if not options.keep:
            shutil.rmtree(work)
    write_result(options.name, {"batch": options.batch, "precision": options.precision, **figures}, "no images")


def measured(family: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All steps of one family, each in a process of its own."""
    found: dict[str, Any] = {}
    work.mkdir(parents=True, exist_ok=True)
    for step in options.steps:
        command = [sys.executable, __file__, "--step", step, "--families", family, "--work", str(work)]
        command += ["--precision", options.precision, "--batch", options.batch]
        started = time.monotonic()
        process = subprocess.Popen(command, env={**os.environ, "DIFFCLEAN_CACHE": str(work / "cache")})
        _, status, usage = os.wait4(process.pid, 0)
        result = work / f"{step}.json"
        found[step] = {
            "ok": status == 0,
            "seconds": round(time.monotonic() - started, 1),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_gib": round(usage.ru_maxrss * 1024 / GIB, 2),
            "load_average": round(os.getloadavg()[1], 1),
            **(json.loads(result.read_text()) if status == 0 and result.exists() else {}),
        }
        print(family, step, found[step], flush=True)
        if status != 0:
            break
    limited = [found[step] for step in ("export", "compile") if step in found]
    found["within_limits"] = {
        "minutes": options.minutes,
        "gib": options.gib,
        "holds": all(
            each["ok"] and each["seconds"] <= 60 * options.minutes and each["peak_gib"] <= options.gib
            for each in limited
        ),
    }
    return found


def make(family: str, work: Path, options: argparse.Namespace) -> None:
    """A model directory in fp16; one part after the other is made and let go."""
    said = Said(time.monotonic())
    model = work / "model"
    parameters = saved(family, model, said.say)
    note = {"note": NOTES[family]} if family in NOTES else {}
    told_of(work, "make", {"parameters": parameters, "bytes": size_of(model), **note})


def export(family: str, work: Path, options: argparse.Namespace) -> None:
    """From torch to ONNX, as it is typed."""
    from diffclean.cli.main import main as diffclean
    from diffclean.engine.manifest import read_engine_manifest

    command = ["export", str(work / "model"), "-o", str(work / "engine"), "--precision", options.precision]
    command += ["--size", str(SIZES[family])] if family in SIZES else []
    print("  diffclean", *command, flush=True)
    if code := diffclean(command):
        sys.exit(code)
    manifest = read_engine_manifest(work / "engine")
    told_of(
        work,
        "export",
        {
            "bytes": size_of(work / "engine"),
            "image_size": manifest.image_size,
            "components": {
                name: {"bytes": size_of(work / "engine" / name), "parity": entry.parity}
                for name, entry in manifest.components.items()
            },
        },
    )


def compile_(family: str, work: Path, options: argparse.Namespace) -> None:
    """ONNX -> TensorRT-RTX, where it is installed."""
    from diffclean.engine.tensorrt_targets import Profile
    from diffclean.errors import MissingExtraError
    from diffclean.export.compiled import compile_engine
    from diffclean.export.forms import CompileOptions

    started = time.monotonic()
    compiling = CompileOptions(("tensorrt-rtx",), Profile.parse(options.batch), guided=True)
    try:
        made = compile_engine(work / "engine", compiling, Said(started))
    except MissingExtraError as error:
        told_of(work, "compile", {"left_out": error.message})
        return
    sizes = {
        each.form.component: sum((work / "engine" / name).stat().st_size for name in each.form.files) for each in made
    }
    form = made[0].form
    version = form.key["runtime_version"]
    told_of(work, "compile", {"target": f"{form.target} {version}", "bytes": sum(sizes.values()), "components": sizes})


def step_in_torch(family: str, work: Path, options: argparse.Namespace) -> None:
    """What torch makes of the model in fp32."""
    outputs_of("torch", work)


def step_in_openvino(family: str, work: Path, options: argparse.Namespace) -> None:
    """What the exported graphs make of the same, in fp32 from weights in half precision."""
    import torch

    outputs_of("openvino", work)
    found = {runtime: torch.load(work / f"{runtime}.pt", weights_only=True) for runtime in ("torch", "openvino")}
    errors = {}
    for name, want in found["torch"].items():
        have = found["openvino"][name]
        difference = (have.double() - want.double()).abs()
        errors[name] = {
            "relative": float(difference.max() / want.double().abs().max()),
            "mean_relative": float(difference.mean() / want.double().abs().mean()),
        }
    told_of(work, "step_in_openvino", {"difference_to_torch": errors})


def outputs_of(runtime: str, work: Path) -> None:
    """Run one denoising step and one decode at batch 1, one component open at a time, and keep what comes out."""
    import torch

    from diffclean.engine.manifest import read_engine_manifest
    from diffclean.export.onnx import example_inputs
    from diffclean.runtime.choose import open_runtime

    said = Said(time.monotonic())
    manifest = read_engine_manifest(work / "engine")
    kept: dict[str, Any] = {}
    for component in ("unet", "vae_decoder"):
        alone = replace(manifest, components={component: manifest.components[component]})
        opened = open_runtime(runtime, work / "engine", alone, "fp32")
        said.say(f"{component} is open on {runtime}")
        inputs = example_inputs(manifest.components[component].inputs, 1, seed=2)
        if "timestep" in inputs:
            inputs["timestep"] = torch.full((1,), 500.0)
        outputs = opened.run(component, inputs)
        kept |= {f"{component}.{index}": output for index, output in enumerate(outputs) if output.dtype != torch.bool}
        said.say(f"{component} has run")
        del opened
    torch.save(kept, work / f"{runtime}.pt")


class Said:
    """Progress as lines with the time and the peak so far: where both go."""

    def __init__(self, started: float) -> None:
        self.started, self.unit = started, ""

    def say(self, what: str) -> None:
        """One line."""
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(
            f"  {time.monotonic() - self.started:6.1f} s, peak {int(peak.split()[1]) / 2**20:5.2f} GiB: {what}",
            flush=True,
        )

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """See `Progress`."""
        self.unit = unit
        self.say(f"{what}, {total} {unit}")

    def advance(self, count: int = 1, **figures: float) -> None:
        """See `Progress`; per cent are too many."""
        if self.unit == "components":
            self.say("one more")

    def end(self) -> None:
        """See `Progress`."""
        self.say("done")


def told_of(work: Path, step: str, figures: dict[str, Any]) -> None:
    (work / f"{step}.json").write_text(json.dumps(figures))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


STEPS: dict[str, Callable[[str, Path, argparse.Namespace], None]] = {
    "make": make,
    "export": export,
    "compile": compile_,
    "step_in_torch": step_in_torch,
    "step_in_openvino": step_in_openvino,
}

if __name__ == "__main__":
    main()
