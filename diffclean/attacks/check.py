"""Checks of a user's parameters, which report all mistakes at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from diffclean.attacks.base import Attack
from diffclean.errors import UsageError


class Check:
    """The parameters of one attack with its defaults filled in, and their problems.

    Each check returns whether its value can be used, so that a later check that needs it can be omitted.

    Args:
        attack: the attack that the parameters belong to.
        parameters: the given parameters.
    """

    def __init__(self, attack: Attack, parameters: Mapping[str, Any]) -> None:
        self._attack = attack
        self._problems: list[str] = []
        self._hint = ""
        self.values: dict[str, Any] = {**attack.default_parameters, **parameters}
        unknown = sorted(set(parameters) - set(attack.default_parameters))
        if unknown:
            known = ", ".join(f"{name}={value}" for name, value in attack.default_parameters.items())
            self._problems.append(f"{attack.name} has no parameter {', '.join(unknown)}.")
            self._hint = f"Its parameters and their defaults are: {known}."

    def that(self, holds: bool, name: str, expected: str) -> bool:
        """Note a problem unless `holds`: `name` must be `expected`."""
        if not holds:
            self._problems.append(f"{self._attack.name}: {name} must be {expected}, not {self.values[name]!r}.")
        return holds

    def choice(self, name: str, choices: Sequence[str]) -> bool:
        """Check for one of a few words."""
        return self.that(self.values[name] in choices, name, f"one of {', '.join(choices)}")

    def flag(self, name: str) -> bool:
        """Check for true or false."""
        return self.that(isinstance(self.values[name], bool), name, "true or false")

    def integer(self, name: str, least: int, most: int | None = None) -> bool:
        """Check for a whole number from `least` to `most`."""
        value = self.values[name]
        fits = is_integer(value) and value >= least and (most is None or value <= most)
        expected = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
        return self.that(fits, name, expected)

    def number(self, name: str, above: float, most: float) -> bool:
        """Check for a number above `above` and at most `most` (which can be infinite)."""
        value = self.values[name]
        limit = f"above {above:g}" + ("" if math.isinf(most) else f" and at most {most:g}")
        return self.that(is_number(value) and above < value <= most, name, f"a number {limit}")

    def seed(self, name: str, seed: int) -> bool:
        """Check for an integer; None becomes `seed`, the run's seed."""
        self.values[name] = seed if self.values[name] is None else self.values[name]
        return self.that(is_integer(self.values[name]), name, "an integer")

    def wrong(self, problem: str) -> None:
        """Note a problem that no other check covers."""
        self._problems.append(f"{self._attack.name}: {problem}")

    def done(self) -> dict[str, Any]:
        """The checked values.

        Raises:
            UsageError: there are problems; the message lists all of them.
        """
        if self._problems:
            raise UsageError("\n".join(self._problems), self._hint)
        return self.values


class Mistakes:
    """Collects usage errors: use `with mistakes: ...` as often as needed, then call `tell()`."""

    def __init__(self) -> None:
        self._found: list[UsageError] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, UsageError):
            self._found.append(error)
            return True
        return False

    def tell(self) -> None:
        """Raise everything that was collected as one error.

        Raises:
            UsageError: there was at least one mistake.
        """
        if self._found:
            hints = dict.fromkeys(error.hint for error in self._found if error.hint)
            raise UsageError("\n".join(error.message for error in self._found), "\n".join(hints))


def is_integer(value: object) -> bool:
    """Whether it is an integer and not true or false, which are integers in Python."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is an integer or a finite float."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))
