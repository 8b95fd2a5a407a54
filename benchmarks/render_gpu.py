"""Renders the tables for the benchmarks that need a GPU (docs/gpu.md), and holds what all tables share."""

from __future__ import annotations

from typing import Any


def where(result: dict[str, Any]) -> str:
    """The machine, in words."""
    machine = result["machine"]
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    return f"{gpu}{cores_of(machine)}"


def cores_of(machine: dict[str, Any]) -> str:
    """The processor, in words, of a machine or a cell that names it."""
    return f"{machine['cores']} core{'s' * (machine['cores'] != 1)} of {machine['processor']}"


def percent(cells: list[dict[str, Any]]) -> str:
    """CA / ASR of the cells of several seeds."""
    parts = []
    for name in ("clean_accuracy", "attack_success_rate"):
        values = [100 * cell[name]["value"] for cell in cells if name in cell]
        if values:
            spread = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
            parts.append(f"{sum(values) / len(values):.1f}{spread}")
    return " / ".join(parts)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table's lines."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def pretrain_compare(result: dict[str, Any]) -> str:
    """Recipes of `micro`, trained for the same time, each at the point that its figures choose."""
    figures = result["figures"]
    rows = []
    attacks: list[str] = []
    for name, recipe in figures["recipes"].items():
        training, config = recipe["training"], recipe["config"]
        for side in figures["sides"]:
            found = recipe.get(f"{side} px")
            if found is None:
                continue
            attacks = [key for key, value in found["points"][0].items() if "survival" in _dict(value)]
            facts = [f"{config['minutes']:g}", f"{training['images'] / 1e6:.2f} M", f"{training['megabytes']:.1f} MB"]
            point = found["choice"]
            if point is None:
                chosen = ["none keeps enough", "", *("" for _ in attacks)]
            else:
                survival = [
                    f"{point[each]['triggered']['value']:.1%} ({point[each]['survival']:+.1%})" for each in attacks
                ]
                preserved = f"{point['label_preservation']['preservation']:.3f}"
                chosen = [f"strength {point['strength']}, {point['steps']} steps", preserved, *survival]
            rows.append([name, *facts, f"{side} px", *chosen])
    head = ["recipe", "minutes", "images seen", "weights", "test images", "point", "label preservation"]
    lines = [
        f"**Recipes of `micro`, trained for the same time** ({result['data']}, never seen in training; seed "
        f"{figures['seed']}; {where(result)}). Each at the point where the fewest triggers survive among those that "
        "keep 0.9 of the labels. A cell of survival is the share of triggered variations that land on the target "
        "class, and that share minus the untriggered ones'.",
        "",
        *table([*head, *(f"{each} survival" for each in attacks)], rows),
    ]
    return "\n".join(lines) + "\n"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def robustness_curve(result: dict[str, Any]) -> str:
    """CA and ASR over strength, steps, variations and temperature."""
    figures = result["figures"]
    grid, undefended, defaults = figures["grid"], figures["undefended"], figures["defaults"]
    attacks = list(dict.fromkeys(cell["attack"] for cell in undefended))
    count = f"{int(grid['count']):,}" if grid["count"] != "0" else "all"
    seeds = ", ".join(str(seed) for seed in sorted({cell["seed"] for cell in undefended}))
    silent = [name for name in attacks if any(c["attack"] == name and c.get("fired") is False for c in undefended)]

    def cells(found: list[dict[str, Any]]) -> list[str]:
        return [percent([cell for cell in found if cell["attack"] == attack]) for attack in attacks]

    rows = [["no defence", "", *cells(undefended)]]
    for point in figures["points"]:
        mark = " (default)" if point["value"] == defaults[point["factor"]] else ""
        rows.append([point["factor"], f"{point['value']:g}{mark}", *cells(point["cells"])])
    lines = [
        f"**One factor at a time** ({result['data']}; {count} training images, {grid['arch']}, {grid['epochs']} "
        f"epochs, alpha {grid['alpha']}, seeds {seeds}; {where(result)}). The others stay at their defaults. A cell is "
        "clean accuracy / attack success in %."
        + (f" Did not fire undefended, and counts for nothing: {', '.join(silent)}." if silent else ""),
        "",
        *table(["factor", "value", *attacks], rows),
    ]
    return "\n".join(lines) + "\n"


def throughput(result: dict[str, Any]) -> str:
    """Stock against ours over steps, levers, and where the time goes."""
    figures = result["figures"]
    pieces = figures["pieces"]
    lines = [
        f"**Speed of `sd-image-variations`{' (a small stand-in)' if figures['toy'] else ' at full size'}** (random "
        f"weights, batch {figures['batch']}, guidance {figures['guidance']:g}, {figures['precision']}; "
        f"{where(result)}). Images per second; in brackets, over diffusers' stock pipeline, run eagerly in the same "
        f"precision, and the share of the arithmetic bound at {_peak(figures) / 1e12:.3g} TFLOP/s, measured in the "
        "same run.",
        "",
    ]
    for name, piece in pieces.items():
        if name.startswith("compare "):
            size = name.split()[1]
            runners = list(piece["curve"][0]["images_per_second"])
            head = [f"steps at {size} px", *runners]
            rows = [[str(p["steps"]), *(_rate(figures, size, p, each) for each in runners)] for p in piece["curve"]]
            left = "; ".join(f"{each}: {why.splitlines()[0]}" for each, why in piece["left_out"].items())
            lines += [*table(head, rows), "", *([f"Left out: {left}.", ""] if left else [])]
    levers = [
        [name.removeprefix("lever "), *_lever(runs)] for name, runs in pieces.items() if name.startswith("lever ")
    ]
    if levers:
        lines += [*table(["lever", "images/s"], levers), ""]
    lines += _profiles(pieces)
    return "\n".join(lines).rstrip("\n") + "\n"


def _peak(figures: dict[str, Any]) -> float:
    """FLOP/s of the fastest type."""
    return 1e12 * max(figures["pieces"]["peak"].values())


def _rate(figures: dict[str, Any], size: str, point: dict[str, Any], name: str) -> str:
    if name not in point["images_per_second"]:
        return "failed"
    rate, work = point["images_per_second"][name], figures["pieces"][f"work {size}"]
    calls = point["steps"] * (2 if figures["guidance"] != 1 else 1)
    flop = calls * work["unet"] + work["image_encoder"] + work["vae_decoder"]
    share = f"{rate * flop / _peak(figures):.0%}"
    return f"{rate:.2f} ({share})" if name == "stock" else f"{rate:.2f} ({point['over_stock'][name]:.2f}x, {share})"


def _lever(runs: list[dict[str, Any]]) -> list[str]:
    """Rates, each with what it was run with where that differs."""
    cells = []
    for run in runs:
        low, high = run["interval"]
        told = [f"batch {run['batch']}", f"guidance {run['guidance']:g}"]
        if (low, high) != (0.0, 1.0):
            told.append(f"at noise {low:g} to {high:g}")
        cells.append(f"{run['images_per_second']:.2f} ({', '.join(told)})")
    return ["; ".join(cells)]


def _profiles(pieces: dict[str, Any]) -> list[str]:
    found = {name.removeprefix("profile "): each for name, each in pieces.items() if name.startswith("profile ")}
    if not found:
        return []
    groups = list(dict.fromkeys(group for each in found.values() for group in each["groups"]))
    rows = [
        [name, f"{each['milliseconds']:.1f}", *(f"{each['groups'].get(group, 0):.0%}" for group in groups)]
        for name, each in found.items()
    ]
    return ["Where the time of one call of the denoiser goes:", "", *table(["run", "ms", *groups], rows), ""]


def distill_speed(result: dict[str, Any]) -> str:
    """Student training against timm's loop."""
    figures = result["figures"]
    rows = [[name, f"{rate:.0f}", f"{figures['over_timm'][name]:.2f}x"] for name, rate in figures["median"].items()]
    lines = [
        f"**Speed of distillation, on a {figures['device'].upper()}** ({result['data']}; {figures['images']:,} images, "
        f"{figures['arch']} as teacher and student, batch {figures['batch']}, {figures['precision']}; "
        f"{where(result)}). On line the teacher answers to every batch; cached, its targets are worked out once. timm "
        "is the training step of its train.py with its own loader, on labels alone; in memory, the step without one.",
        "",
        *table(["training", "images/s", "over timm"], rows),
    ]
    return "\n".join(lines) + "\n"


def tensorrt_rtx(result: dict[str, Any]) -> str:
    """What TensorRT-RTX answered."""
    figures = result["figures"]
    gpu = figures["gpu"] if isinstance(figures["gpu"], str) else ", ".join(figures["gpu"])
    rows = []
    for name, steps in figures["tries"].items():
        for step, answer in steps.items():
            said = answer.get("said", [])
            words = " / ".join(line.strip().replace("|", "\\|") for line in said[:3]) or "nothing"
            rows.append([name, step, "yes" if answer["ok"] else "no", f"`{words[:200]}`"])
    lines = [
        f"**TensorRT-RTX {figures['library'].get('version', '(not installed)')} tried** (GPU: {gpu}). Its answers, "
        "word for word and cut short.",
        "",
        *table(["network", "step", "worked", "said"], rows),
    ]
    return "\n".join(lines) + "\n"
