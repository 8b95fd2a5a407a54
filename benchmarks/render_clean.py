"""Renders the tables of `clean_grid.py`: what the whole job makes of poisoned data, and what others report."""

from __future__ import annotations

from typing import Any

from render_gpu import cores_of, percent, table

Cells = list[dict[str, Any]]

_OTHERS = {
    "badnets": ("91.3 / 95.0", "DBD 89.6 / 1.3", "FT 90.0 / 1.5"),
    "blended": ("93.5 / 99.9", "ABL 77.3 / 0.7", "ANP 86.6 / 2.2"),
    "wanet": ("91.2 / 89.7", "ABL 83.2 / 0.0", "FP 91.5 / 1.1"),
    "sig": ("93.6 / 97.1", "DDE 92.4 / 1.6", "ANP 86.6 / 0.2"),
    "label-consistent": ("93.8 / 90.6", "AC 89.4 / 12.1", "NC 91.8 / 3.7"),
}
"""Attack -> CA / ASR without a defence, with the best one that needs no clean data, and with the best that needs some.

Source: static/data/results.csv of BackdoorBench's site (commit a4ef038 of its repository), CIFAR-10, PreAct-ResNet18,
poison rates of 10 %, of SIG 5 % and of label-consistent 1 %.
"""


def clean_short(result: dict[str, Any]) -> str:
    """The README's first table: CA and ASR without a defence and after `clean`, a row for each attack."""
    every = _rows(result["figures"]["cells"])
    shown = _for_readers_in_a_hurry(every)
    left_out = ""
    if len(shown) < len(every):
        left_out = (
            f"{len(shown)} of {len(every)} rows of the [evidence](docs/evidence.md): left out are attacks that did not "
            "fire (with less than 80 % success without a defence) and smaller runs of the same attack"
            f"{', and then those that were defended against best' if len(shown) < len(_largest(every)) else ''}. "
        )
    lines = [
        "What `diffclean clean` does at its defaults: clean accuracy / attack success in %, without a defence, of the "
        "student, and of a classifier that never met the attack, which is the best that can be had. *Found* is the "
        f"share of the poisoned images that are listed, *wrongly listed* that of the clean ones. {_LANDING} "
        f"{left_out}{_about(result)}",
        "",
    ]
    head = ["data", "attack", "found", "wrongly listed", "no defence", "`clean`", "clean data", "no trigger"]
    rows = []
    for own in shown:
        rates = [_rates(own, name) for name in ("before", "after", _CLEAN)]
        rows.append([_data(own[0]), _named(own), *_listed(own), *rates, _landing(own)])
    return "\n".join([*lines, *table(head, rows)]) + "\n"


def _for_readers_in_a_hurry(rows: list[Cells]) -> list[Cells]:
    """At most six rows: of each data set and attack that fired the largest run, and of these the worst outcomes."""
    worst = sorted(_largest(rows), key=_left_of_the_attack, reverse=True)[:_SHOWN]
    return [own for own in rows if own in worst]


def _largest(rows: list[Cells]) -> list[Cells]:
    """Of each data set and attack that fired the largest run."""
    largest: dict[tuple[str, str], Cells] = {}
    for own in rows:
        pair = own[0]["data"], own[0]["attack"]
        fired = all(cell["fired"] is not False for cell in own)
        if fired and (pair not in largest or own[0]["images"] > largest[pair][0]["images"]):
            largest[pair] = own
    return list(largest.values())


def _left_of_the_attack(own: Cells) -> float:
    """How much larger the attack success is after `clean` than on clean data; a benign run comes before all others."""
    success = [
        cell["after"]["attack_success_rate"]["value"] - cell[_CLEAN]["attack_success_rate"]["value"]
        for cell in own
        if cell["after"].get("attack_success_rate") is not None
    ]
    return max(success, default=1.0)


def clean_table(result: dict[str, Any]) -> str:
    """Every link of the job, attack by attack, with intervals; and beside it what others report."""
    lines = [
        "**The whole job, `diffclean clean` at its defaults, attack by attack.** A cell is clean accuracy / attack "
        "success in %, of one run with its 95 % interval, of several runs the mean and the range. *Teacher anew* "
        "learned without the suspects, and the student learned from it. *Clean data* is a classifier that learned from "
        f"the data before they were poisoned, in the same way as the teacher. {_LANDING} {_about(result)}",
        "",
    ]
    head = ["data", "attack", "poison", "half", "seeds", "listed", "found", "wrongly listed", "no defence"]
    head += ["teacher anew", "student", "clean data", "no trigger", "minutes"]
    rows = []
    for own in _rows(result["figures"]["cells"]):
        seeds, listed = (", ".join(str(cell[name]) for cell in own) for name in ("seed", "listed"))
        row = [_data(own[0]), _named(own), _poison(own[0]), own[0]["half"], seeds, listed, *_listed(own)]
        row += [_rates(own, name, exact=True) for name in ("before", "anew", "after", _CLEAN)]
        rows.append([*row, _landing(own), _minutes(own)])
    parts = [*lines, *table(head, rows), "", *_elsewhere(result["figures"]["cells"])]
    return "\n".join(parts) + "\n"


def mirrored_table(result: dict[str, Any]) -> str:
    """Which classes become something else in the mirror."""
    figures = result["figures"]
    lines = [
        f"**When `clean` mirrors images** (seed {figures['seed']}; {cores_of(result['machine'])}, busy with other "
        "work). Recognised: the share of held-out images that the small network knows as they are, and in the mirror. "
        "The network and its training were chosen on signs without poison and with all-to-all BadNets, on CIFAR-10 "
        "with Blended and BPP, and on tiny40 with all-to-all BadNets; the limits were set before.",
        "",
    ]
    rows = []
    for cell in figures["cells"]:
        seen = cell["classes"].values()
        images, right, mirrored = (sum(each[name] for each in seen) for name in ("images", "right", "right_mirrored"))
        known = f"{right / images:.1%} / {mirrored / images:.1%}"
        attack = cell["attack"] if cell["rate"] is None else f"{cell['attack']}, {cell['rate']:.1%}"
        turned = ", ".join(cell["turned"]) or "none"
        mirrors = "yes" if cell["mirrors"] else "no"
        rows.append([cell["data"], attack, str(len(seen)), known, turned, mirrors, f"{cell['cpu_s']:.0f}"])
    head = ["data", "attack", "classes", "recognised", "something else in the mirror", "mirrored", "CPU s"]
    return "\n".join([*lines, *table(head, rows)]) + "\n"


_CLEAN = "clean_training"
_SHOWN = 6
"""Rows of the README's table."""
_LANDING = (
    "*No trigger* is the share of the test images of other classes that the student takes for the target without the "
    "trigger: an attack success of about that size is a mistake that the student makes anyway."
)


def _about(result: dict[str, Any]) -> str:
    """Sizes of data, networks, machines and states of the code."""
    cells: Cells = result["figures"]["cells"]
    sizes = "; ".join(dict.fromkeys(f"{cell['data']}: {cell['images']:,} training images" for cell in cells))
    networks = ", ".join(dict.fromkeys(f"{cell['arch']} for {cell['epochs'][0]} epochs" for cell in cells))
    commits = len({cell["commit"] for cell in cells})
    states = f", on {commits} states of the code" if commits > 1 else ""
    machines = ", ".join(dict.fromkeys(cores_of(cell) for cell in cells))
    seeds = sorted({cell["seed"] for cell in cells})
    seen = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return f"({sizes}; {networks}; {seen}; {machines}{states}.){_chosen_on(cells)}"


def _chosen_on(cells: Cells) -> str:
    """Which runs are held-out evidence, and of what."""
    said = {
        "chosen": "The settings of the detector were chosen on these pairs",
        "reported": "None of them was chosen on these",
    }
    told = ""
    for half, words in said.items():
        pairs = dict.fromkeys(f"{cell['data']} {cell['attack']}" for cell in cells if cell["half"] == half)
        told += f" {words}: {', '.join(pairs)}." if pairs else ""
    if any(cell["data"] == "cifar10" for cell in cells):
        told += " Those of variations and trainings were chosen on CIFAR-10 with BadNets, Blended and SIG."
    return told


def _rows(cells: Cells) -> list[Cells]:
    """The cells that differ in their seed only, together."""
    rows: dict[tuple[Any, ...], Cells] = {}
    for cell in cells:
        key = tuple(cell[name] for name in ("data", "images", "attack", "rate", "options"))
        rows.setdefault(key, []).append(cell)
    return [sorted(own, key=lambda cell: int(cell["seed"])) for own in rows.values()]


def _named(own: Cells) -> str:
    return str(own[0]["attack"]) + (" (did not fire)" if any(cell["fired"] is False for cell in own) else "")


def _data(cell: dict[str, Any]) -> str:
    return f"{cell['data']}, {cell['images']:,}" + (f", `{cell['options']}`" if cell["options"] else "")


def _poison(cell: dict[str, Any]) -> str:
    return "" if cell["real_rate"] is None else f"{cell['real_rate']:.1%}, {cell['labels']}"


def _listed(own: Cells) -> list[str]:
    """TPR and FPR."""
    images, listed = (sum(cell[name] for cell in own) for name in ("images", "listed"))
    if own[0]["recall"] is None:
        return ["", f"{listed / images:.1%}"]
    return [_share(own, name) for name in ("recall", "false_positive_rate")]


def _share(own: Cells, name: str) -> str:
    hits, count = (sum(cell[name][part] for cell in own) for part in ("hits", "count"))
    return f"{hits / count:.1%}"


def _rates(own: Cells, name: str, exact: bool = False) -> str:
    """CA / ASR of one classifier of each cell."""
    known = [cell[name] for cell in own if cell[name] is not None]
    shown = [{key: rate for key, rate in each.items() if rate is not None} for each in known]
    if not exact or len(shown) != 1:
        return percent(shown)
    rates = [shown[0][key] for key in ("clean_accuracy", "attack_success_rate") if key in shown[0]]
    return " / ".join(f"{100 * r['value']:.1f} ({100 * r['low']:.1f}-{100 * r['high']:.1f})" for r in rates)


def _landing(own: Cells) -> str:
    """How often the student's answer is the target without the trigger; older cells do not have it."""
    after = [cell["after"].get("benign_landing") for cell in own]
    return "" if None in after else ", ".join(f"{100 * rate['value']:.1f}" for rate in after)


def _minutes(own: Cells) -> str:
    return ", ".join(f"{sum(cell['seconds'].values()) / 60:.0f}" for cell in own)


def _elsewhere(cells: Cells) -> list[str]:
    """What BackdoorBench reports for the attacks of the table."""
    attacks = dict.fromkeys(cell["attack"] for cell in cells if cell["data"] == "cifar10")
    rows = [[attack, *_OTHERS[attack]] for attack in attacks if attack in _OTHERS]
    if not rows:
        return []
    return [
        "What BackdoorBench v2 reports for these attacks (its site's results.csv; CIFAR-10 as published, all 50,000 "
        "images, PreAct-ResNet18). Our images are JPEG-coded copies, mostly fewer, and seen by a smaller network, so "
        "compare the differences between columns, not the accuracies.",
        "",
        *table(["attack", "no defence", "best without clean data", "best with clean data"], rows),
    ]
