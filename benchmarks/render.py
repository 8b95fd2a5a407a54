"""Write the tables between the `figures` markers of README.md from benchmarks/results: no figure is typed by hand.

python benchmarks/render.py            # write
python benchmarks/render.py --check    # exit 1 if README.md is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    fresh = head + BEGIN + rendered() + END + tail
    if options.check:
        return int(fresh != text)
    readme.write_text(fresh)
    return 0


def rendered() -> str:
    """All tables, in order; a result that is not there is left out."""
    parts = []
    for name, render in RENDERERS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(render(json.loads(path.read_text())))
    return "\n".join(parts)


def speed(result: dict[str, Any]) -> str:
    """Images per second of `variate`, and its ratios."""
    figures = result["figures"]
    median, ratios = figures["median"], figures["ratios"]
    lines = [
        f"**Speed** ({figures['steps']} steps, batch {figures['batch']}, {where(result)}). Stock is the same model in "
        f"diffusers' own eager fp32 loop, on tensors in memory: {median['stock']:.1f} images/s. `variate` goes from "
        "files to files; the bare engine runs on tensors in memory.",
        "",
        "| runtime | input | images/s | over stock | of the bare engine |",
        "|---|---|---|---|---|",
    ]
    for key, value in median.items():
        if not key.startswith("variate "):
            continue
        _, runtime, kind = key.split(" ")
        precision = figures["precision"][runtime]
        over, share = ratios[f"{key} / stock"], ratios[f"{key} / engine"]
        lines.append(f"| {runtime} ({precision}) | {kind} | {value:.1f} | {over:.1f}x | {share:.0%} |")
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
    figures = result["figures"]
    few, many = figures["few"], figures["many"]
    return (
        f"**Memory**: peak {few['peak_mb']:.0f} MB on {few['images']:,} images, {many['peak_mb']:.0f} MB on "
        f"{many['images']:,} ({where(result)}).\n"
    )


def killed(result: dict[str, Any]) -> str:
    """Kills survived."""
    figures = result["figures"]
    equal = "equal to" if figures["bytes_equal"] else "DIFFERENT FROM"
    return (
        f"**Kills**: a run of {figures['images']} images killed {figures['kills']} times at random moments and resumed "
        f"each time has every image {'once' if figures['in_manifest_once'] else 'NOT once'}, its bytes {equal} those "
        "of an undisturbed run.\n"
    )


def where(result: dict[str, Any]) -> str:
    """The machine, in words."""
    machine = result["machine"]
    return f"{machine['cores']} cores of {machine['processor']}"


RENDERERS = {
    "micro_quality": quality("Quality of `micro`"),
    "micro_quality_ablation": quality("The ablation: pretrained without corruptions, for as many images"),
    "micro_quality_longer": quality("Pretrained for longer, and not shipped"),
    "variate_throughput": speed,
    "variate_memory": memory,
    "kill_resume": killed,
}

if __name__ == "__main__":
    sys.exit(main())
