"""Renders the tables of `micro_recipes.py`."""

from __future__ import annotations

from typing import Any

from render_gpu import table, where


def micro_recipes(result: dict[str, Any]) -> str:
    """What each recipe keeps and removes, each at the setting that one half chose, by the figures of the other."""
    figures = result["figures"]
    attacks = figures["attacks"]
    fired = ", ".join(
        f"{name} {figures['undefended'][name]['teacher_attack_success']['value']:.1%}" for name in attacks
    )
    lines = [
        f"**Recipes of `micro`** ({result['data']}, never seen in training; {figures['scheduler']}, seed "
        f"{figures['seed']}; {where(result)}). Attack success on the teachers without variation: {fired}. The attacks "
        "named and half of the images chose the setting: the one at which the fewest triggers survive among those that "
        "keep so many labels. The figures are those of the other attacks and the other images. Survival is the "
        "share of triggered variations that land on the target class, minus the untriggered ones'.",
    ]
    for kept in next(iter(figures["runs"].values()))["choices"]:
        head = ["recipe", "images seen", "chosen by", "setting", "label preservation", *attacks]
        rows = [
            _row(name, run, choice, attacks) for name, run in figures["runs"].items() for choice in run["choices"][kept]
        ]
        lines += ["", f"Label preservation of at least {kept}:", "", *table(head, rows)]
    return "\n".join(lines) + "\n"


def _row(name: str, run: dict[str, Any], choice: dict[str, Any], attacks: list[str]) -> list[str]:
    seen = f"{run['images']:,}" if "images" in run else ""
    row = [name, seen, ", ".join(choice["chosen_by"])]
    if choice["setting"] is None:
        return [*row, "none keeps enough", "", *("" for _ in attacks)]
    setting = choice["setting"]
    look = f"strength {setting['strength']}"
    if setting["look"]:
        factor, _, noise = setting["look"].partition(":")
        look = f"factor {factor}, noise {noise}"
    survival = [f"{choice['survival'][each]:+.1%}" if each in choice["survival"] else "" for each in attacks]
    return [*row, f"{look}, {setting['steps']} steps", f"{choice['label_preservation']:.3f}", *survival]
