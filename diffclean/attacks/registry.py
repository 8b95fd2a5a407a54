"""The attacks there are."""

from __future__ import annotations

from diffclean.attacks.adaptive_blend import AdaptiveBlend
from diffclean.attacks.badnets import BadNets
from diffclean.attacks.base import Attack
from diffclean.attacks.blended import Blended
from diffclean.attacks.bpp import Bpp
from diffclean.attacks.color_shift import ColorShift
from diffclean.attacks.ftrojan import FTrojan
from diffclean.attacks.label_consistent import LabelConsistent
from diffclean.attacks.object import Object
from diffclean.attacks.sig import Sig
from diffclean.attacks.wanet import WaNet
from diffclean.errors import UsageError

_ALL: tuple[Attack, ...] = (
    BadNets(),
    Blended(),
    Sig(),
    WaNet(),
    FTrojan(),
    Bpp(),
    LabelConsistent(),
    AdaptiveBlend(),
    ColorShift(),
    Object(),
)
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}


def get(name: str) -> Attack:
    """The attack of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in ATTACKS:
        raise UsageError(f"There is no attack {name!r}.", f"There are: {', '.join(ATTACKS)}.")
    return ATTACKS[name]
