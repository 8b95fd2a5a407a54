"""Write the tables between the `figures` markers of README.md and of some pages of docs/ from benchmarks/results.

This script generates every figure; none is typed by hand.

python benchmarks/render.py            # write
python benchmarks/render.py --check    # exit 1 if one of them is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from render_buckets import killed_in_bucket, killed_on_ray, stores, trained_from_bucket
from render_clean import clean_short, clean_table, mirrored_table
from render_cost import cost_table
from render_detection import detection_short, detection_summary, detection_table
from render_gpu import (
    distill_speed,
    percent,
    pretrain_compare,
    robustness_curve,
    tensorrt_rtx,
    throughput,
    where,
)
from render_models import fast_recipe, full_size, int8_micro, timm_loop
from render_recipes import micro_recipes
from render_scale import actors, plan
from render_windows import windows_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = False
    for name, renderers in PAGES.items():
        path = ROOT / name
        text = path.read_text()
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        fresh = head + BEGIN + rendered(renderers) + END + tail
        stale = stale or fresh != text
        if not options.check:
            path.write_text(fresh)
    return int(options.check and stale)


def rendered(renderers: dict[str, Any]) -> str:
    """All tables of a page, in order; a result that is not there is left out."""
    parts = []
    for name, render in renderers.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            parts += [each(result) for each in (render if isinstance(render, list) else [render])]
    return "\n".join(parts)


def speed(result: dict[str, Any]) -> str:
    """Images per second of `variate`, and its ratios."""
    figures = result["figures"]
    median, ratios = figures["median"], figures["ratios"]
    windows = figures.get("windows")  # results of before photographs were regenerated in windows do not have it
    counts = "one window a picture"
    if windows is not None:
        each = (f"{count:.3g} window{'s' * (count != 1)} a picture of {kind}" for kind, count in windows.items())
        counts = ", ".join(each)
    steps = f"{figures['steps']} step{'s' * (figures['steps'] > 1)}"
    starts = ""
    if "photographs" in figures:
        starts = (
            " With several processes, the seconds in which they start count, which weighs heavily on as few as "
            f"{figures['images']} small pictures and {figures['photographs']} photographs."
        )
    lines = [
        f"**Speed: {steps}, {counts}** (batch {figures['batch']}; {where(result)}). Stock is the same model in "
        f"diffusers' own eager fp32 loop, on tensors in memory: {median['stock']:.1f} windows/s. `variate` goes from "
        "files to files; the bare engine runs on tensors in memory, in one process or in as many as `variate`. Ratios "
        f"compare windows with windows.{starts}",
        "",
        "| runtime | processes | input | images/s | over stock | of the bare engine, one process | as many |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, value in median.items():
        if not key.startswith("variate "):
            continue
        _, runtime, processes, kind = key.split(" ")
        precision, over = figures["precision"][runtime], ratios[f"{key} / stock"]
        of_one, of_many = (ratios[f"{key} / engine {count}"] for count in (1, processes))
        lines.append(
            f"| {runtime} ({precision}) | {processes} | {kind} | {value:.1f} | {over:.1f}x | {of_one:.0%} | "
            f"{of_many:.0%} |"
        )
    return "\n".join(lines) + "\n"


def quality(title: str) -> Any:
    """Label preservation and trigger survival over strength and steps."""

    def render(result: dict[str, Any]) -> str:
        figures = result["figures"]
        attacks = [
            name for name, value in figures["points"][0].items() if isinstance(value, dict) and "survival" in value
        ]
        before = figures["undefended"]
        fired = ", ".join(f"{n} {before[n]['teacher_attack_success']['value']:.1%}" for n in attacks)
        lines = [
            f"**{title}** ({result['data']}, never seen in training; {figures['scheduler']}, seed {figures['seed']}). "
            f"Attack success on the teachers without variation: {fired}. A cell of survival is the share of triggered "
            "variations that land on the target class, and that share minus the untriggered ones'.",
            "",
            "| strength | steps | label preservation | " + " | ".join(f"{name} survival" for name in attacks) + " |",
            "|---" * (3 + len(attacks)) + "|",
        ]
        for point in figures["points"]:
            cells = [f"{point['strength']}", f"{point['steps']}", f"{point['label_preservation']['preservation']:.3f}"]
            cells += [f"{point[n]['triggered']['value']:.1%} ({point[n]['survival']:+.1%})" for n in attacks]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    return render


def memory(result: dict[str, Any]) -> str:
    """Peak memory on few and on many images."""
    runs = [
        f"in {run['processes']} process{'es' if run['processes'] > 1 else ''} {run['few']['peak_mb']:.0f} MB on "
        f"{run['few']['images']:,} images, {run['many']['peak_mb']:.0f} MB on {run['many']['images']:,}"
        for run in result["figures"]["runs"]
    ]
    return f"**Memory**, at its peak: {'; '.join(runs)} ({where(result)}).\n"


def killed(result: dict[str, Any]) -> str:
    """Kills survived."""
    figures = result["figures"]
    lines = []
    for run in figures["runs"]:
        once = "once" if run["in_manifest_once"] else "NOT once"
        equal = "equal to" if run["bytes_equal"] else "DIFFERENT FROM"
        lines.append(
            f"**Kills** (`--processes {run['processes']}`): a run of {figures['images']} images killed {run['kills']} "
            f"times at random moments and resumed each time has every image {once}, its bytes {equal} those of an "
            "undisturbed run.\n"
        )
    return "\n".join(lines)


def container(result: dict[str, Any]) -> str:
    """Sizes of the images, the time to the first variation, images an hour."""
    figures = result["figures"]
    lines = [
        f"**The images** ({where(result)}; {figures['runs']} starts each, median and range; {result['data']}, the "
        "embedded engine). Cold: nothing of the image is in the machine's memory yet.",
        "",
        "| image | size | of it CUDA's libraries | runtime here | first variation | the same, cold |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in figures["images"].items():
        cells = [f"{found['bytes'] / 1e9:.2f} GB", f"{found['bytes_of_cuda_libraries'] / 1e9:.2f} GB", found["runtime"]]
        cells += [_range_s(found["first_variation_s"]), _range_s(found["first_variation_cold_s"])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    steps = next(iter(next(iter(figures["images"].values()))["images_per_hour"].values()))
    lines += [
        "",
        f"**Images an hour** there, photographs of up to {figures['longest_side_px']} px, each as one window of the "
        "engine, from files to files.",
        "",
        "| image | runtime | " + " | ".join(f"{number} steps" for number in steps).replace("1 steps", "1 step") + " |",
        "|---" * (2 + len(steps)) + "|",
    ]
    for name, found in figures["images"].items():
        for runtime, rates in found["images_per_hour"].items():
            lines.append(f"| {name} | {runtime} | " + " | ".join(f"{rate:,}" for rate in rates.values()) + " |")
    return "\n".join(lines) + "\n"


def _range_s(found: dict[str, float] | None) -> str:
    return f"{found['median']:.1f} s ({found['least']:.1f}-{found['most']:.1f})" if found else ""


def robustness(title: str, explained: bool = True) -> Any:
    """CA and ASR of each defence, attack by attack; with several seeds, mean and range."""

    def render(result: dict[str, Any]) -> str:
        figures = result["figures"]
        grid, cells = figures["grid"], figures["cells"]
        defences = list(dict.fromkeys(cell["defence"] for cell in cells))
        seeds = ", ".join(map(str, sorted({cell["seed"] for cell in cells})))
        count = f"{int(grid['count']):,}" if grid["count"] != "0" else "all"
        varied = "".join(f", {name} {value:g}" for name, value in figures["variation"].items())
        varied += "".join(f", {name} {grid[name]}" for name in ("turn", "zoom") if name in grid)
        if grid["student_epochs"] != grid["epochs"]:
            varied += f", student {grid['student_epochs']} epochs"
        lines = [
            f"**{title}** ({result['data']}; {count} training images, {grid['arch']}, {grid['epochs']} epochs, target "
            f"{grid['target']}; temperature {grid['temperature']}, alpha {grid['alpha']}{varied}; seed {seeds}; "
            f"{where(result)}). {_CELLS if explained else ''}".rstrip(),
            "",
            "| attack | like | " + " | ".join(defences) + " |",
            "|---" * (2 + len(defences)) + "|",
        ]
        for attack in dict.fromkeys(cell["attack"] for cell in cells):
            rows = [cell for cell in cells if cell["attack"] == attack]
            like = {None: "", True: "like", False: "unlike"}[rows[0]["like_corruptions"]]
            silent = " (did not fire)" if any(cell.get("fired") is False for cell in rows) else ""
            shown = [percent([cell for cell in rows if cell["defence"] == defence]) for defence in defences]
            lines.append(f"| {attack}{silent} | {like} | " + " | ".join(shown) + " |")
        return "\n".join(lines) + "\n"

    return render


def suspects(result: dict[str, Any]) -> str:
    """Whom `diffclean suspects` lists, attack by attack."""
    figures = result["figures"]
    varied = ", ".join(f"{name} {value:g}" for name, value in figures["variation"].items())
    target = figures["grid"]["target"]
    lines = [
        f"**Who is listed by `suspects`** (the same images and teachers; {varied}). Separation: how much better two "
        "groups explain what variation takes from the teacher's answers than one does.",
        "",
        f"| attack | seed | poisoned | listed | of these poisoned | separation of {target} | largest of the others |",
        "|---" * 7 + "|",
    ]
    for cell in figures["cells"]:
        if cell["defence"] != "suspects left out":
            continue
        found, separation = cell["suspects"], dict(cell["suspects"]["separation"])
        own = separation.pop(target)
        lines.append(
            f"| {cell['attack']} | {cell['seed']} | {found['poisoned']} | {found['listed']} | {found['both']} "
            f"| {own:.2f} | {max(separation.values()):.2f} |"
        )
    return "\n".join(lines) + "\n"


_CELLS = (
    "A cell is clean accuracy / attack success in %. *like*: the attack resembles what `micro` was trained to remove; "
    "the others are the evidence. An attack that did not fire undefended (below 80 %) is marked, and was not defended "
    "against."
)


PAGES: dict[str, dict[str, Any]] = {
    "README.md": {"clean_grid": clean_short, "detection": detection_short},
    "docs/evidence.md": {
        "clean_grid": clean_table,
        "cost": cost_table,
        "robustness": robustness("The defence at its defaults, attack by attack"),
        "robustness_suspects": [
            robustness("With the suspects left out: a new teacher, and a student of that one", explained=False),
            suspects,
        ],
        "robustness_turned": robustness(
            "The defence at strength 1, with turned and zoomed views and a longer training", explained=False
        ),
        "micro_quality": quality("Quality of `micro`"),
        "detection": detection_table,
        "robustness_alpha": robustness(
            "The defence at its defaults, but with labels for half of the student's loss", explained=False
        ),
        "micro_quality_sig": quality("What is left of a sinusoid (SIG)"),
        "robustness_sig_strength_04": robustness("SIG at strength 0.4", explained=False),
        "robustness_sig_strength_06": robustness("SIG at strength 0.6", explained=False),
        "robustness_sig_strength_10": robustness("SIG at strength 1", explained=False),
        "robustness_sig_turned_06": robustness("SIG at strength 0.6 with turned and zoomed views", explained=False),
        "robustness_sig_turned_08": robustness("SIG at strength 0.8 with turned and zoomed views", explained=False),
        "micro_quality_ablation": quality("The ablation: pretrained without corruptions, for as many images"),
        "micro_quality_longer": quality("Pretrained for longer, and not shipped"),
        "micro_recipes": micro_recipes,
        "pretrain_compare": pretrain_compare,
        "robustness_curve": robustness_curve,
    },
    "docs/clean.md": {"mirrored": mirrored_table},
    "docs/performance.md": {
        "variate_throughput_defaults": speed,
        "variate_throughput": speed,
        "variate_memory": memory,
        "kill_resume": killed,
        "export_full_size": full_size,
        "export_full_size_sdxl": full_size,
        "int8_micro": int8_micro,
        "gpu_throughput": throughput,
        "distill_speed": distill_speed,
        "tensorrt_rtx": tensorrt_rtx,
    },
    "docs/distillation.md": {"fast_recipe": fast_recipe, "timm_loop": timm_loop},
    "docs/buckets.md": {
        "kill_in_bucket": killed_in_bucket,
        "kill_on_ray": killed_on_ray,
        "stores": stores,
        "train_from_bucket": trained_from_bucket,
    },
    "docs/scale.md": {"ray_actors": actors, "variate_throughput": plan},
    "docs/detection.md": {"detection": detection_summary},
    "docs/families.md": {"windows_quality": windows_table},
    "docs/operating.md": {"container_start": container, "variate_memory": memory},
}

if __name__ == "__main__":
    sys.exit(main())
