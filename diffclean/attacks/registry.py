"""The attacks there are."""

from __future__ import annotations

from diffclean.attacks.badnets import BadNets
from diffclean.attacks.base import Attack
from diffclean.attacks.blended import Blended
from diffclean.errors import UsageError

_ALL: tuple[Attack, ...] = (BadNets(), Blended())
ATTACKS: dict[str, Attack] = {attack.name: attack for attack in _ALL}


def get(name: str) -> Attack:
    """The attack of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in ATTACKS:
        raise UsageError(f"There is no attack {name!r}.", f"There are: {', '.join(ATTACKS)}.")
    return ATTACKS[name]
