"""`diffclean.doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffclean.doctor import Examination


def doctor() -> Examination:
    """Say what this machine can run, and why not. `print(diffclean.doctor())` shows it as the command line does."""
    from diffclean.doctor import examine

    return examine()
