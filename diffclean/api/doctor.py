"""`diffclean.doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffclean.doctor import Examination


def doctor() -> Examination:
    """Say what this machine can run, and what is missing for the rest. Print the result to see it as text."""
    from diffclean.doctor import examine

    return examine()
