"""The registry of attacks."""

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
"""Maps each attack to the location of its class, which is imported when it is needed: `diffclean poison --help` lists
the attacks without importing numpy."""


@cache
def get(name: str) -> Attack:
    """The attack with a name.

    Raises:
        UsageError: there is no such attack; the hint lists the names.
    """
    if name not in ATTACKS:
        raise UsageError(f"There is no attack {name!r}.", f"The attacks are: {', '.join(ATTACKS)}.")
    module, _, attribute = ATTACKS[name].partition(":")
    attack: Attack = getattr(import_module(module), attribute)()
    return attack
