"""The attacks there are."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from diffclean.errors import UsageError

if TYPE_CHECKING:
    from diffclean.attacks.base import Attack

ATTACKS = {
    "badnets": "diffclean.attacks.badnets:BadNets",
    "blended": "diffclean.attacks.blended:Blended",
    "sig": "diffclean.attacks.sig:Sig",
    "lf": "diffclean.attacks.lf:Lf",
    "wanet": "diffclean.attacks.wanet:WaNet",
    "ftrojan": "diffclean.attacks.ftrojan:FTrojan",
    "bpp": "diffclean.attacks.bpp:Bpp",
    "label-consistent": "diffclean.attacks.label_consistent:LabelConsistent",
    "adaptive-blend": "diffclean.attacks.adaptive_blend:AdaptiveBlend",
    "color-shift": "diffclean.attacks.color_shift:ColorShift",
    "object": "diffclean.attacks.object:Object",
    "two-scale": "diffclean.attacks.two_scale:TwoScale",
}
"""Attack -> where its class is, imported when it is asked for: `diffclean poison --help` lists them without numpy."""


@cache
def get(name: str) -> Attack:
    """The attack of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in ATTACKS:
        raise UsageError(f"There is no attack {name!r}.", f"There are: {', '.join(ATTACKS)}.")
    module, _, attribute = ATTACKS[name].partition(":")
    attack: Attack = getattr(import_module(module), attribute)()
    return attack
