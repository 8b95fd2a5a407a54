"""The targets of TensorRT engines, GPUs and batch sizes, and their notation on the command line and in messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffclean.errors import UsageError

PORTABLE_FROM = (8, 0)
"""An engine without targets runs on GPUs from this compute capability on, which is the default of TensorRT-RTX."""

Arch = tuple[int, int]
"""A compute capability, for example (8, 9) for Ada Lovelace."""
_LEAST: dict[str, Arch] = {"fp8": (8, 9)}


def least_arch(weights: str | None) -> Arch | None:
    """The smallest compute capability that can read weights in a format; None if every one can."""
    return _LEAST.get(weights) if weights else None


def arch_text(arch: Sequence[Arch]) -> str:
    """`8.6, 8.9`; an empty list becomes `8.0 and newer`."""
    return ", ".join(f"{major}.{minor}" for major, minor in arch) or f"{PORTABLE_FROM[0]}.{PORTABLE_FROM[1]} and newer"


def parse_arch(text: str) -> tuple[Arch, ...]:
    """Turn `8.6,12.0` into ((8, 6), (12, 0)), sorted and without duplicates.

    Raises:
        UsageError: the text is something else.
    """
    try:
        pairs = [part.strip().split(".") for part in text.split(",")]
        return tuple(sorted({(int(major), int(minor)) for major, minor in pairs}))
    except ValueError:
        raise UsageError(
            f"{text!r} is not a list of GPU architectures.", "Give compute capabilities, like 8.6 or 8.6,8.9,12.0."
        ) from None


@dataclass(frozen=True)
class Profile:
    """The batch sizes that an engine accepts, and the one it is tuned for. If all three are equal, it is static."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise UsageError(
                f"The batch sizes {self.minimum}:{self.optimum}:{self.maximum} are not a profile.",
                "Give minimum:optimum:maximum, which are at least 1 and do not fall, such as 1:8:16; or one number.",
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Parse `1:8:16`, or `8` for a static profile.

        Raises:
            UsageError: the text is something else, or the sizes do not rise.
        """
        parts = text.split(":")
        if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(
                f"{text!r} is not a profile of batch sizes.", "Give minimum:optimum:maximum, or one number."
            )
        sizes = [int(part) for part in parts] * (3 // len(parts))
        return cls(*sizes)

    @property
    def static(self) -> bool:
        """Whether it accepts only one batch size."""
        return self.minimum == self.maximum

    def both(self) -> tuple[Profile, ...]:
        """A static profile at the optimum, then this one. The usual batch then gets kernels for exactly its shape."""
        return (self,) if self.static else (Profile(self.optimum, self.optimum, self.optimum), self)

    def __contains__(self, batch: int) -> bool:
        return self.minimum <= batch <= self.maximum

    def __str__(self) -> str:
        return str(self.optimum) if self.static else f"{self.minimum}:{self.optimum}:{self.maximum}"


def closest_profile(profiles: Sequence[Profile], batch: int) -> int | None:
    """The index of the narrowest profile that takes a batch size, so a static one comes first; None if none does."""
    fitting = [index for index, profile in enumerate(profiles) if batch in profile]
    return min(fitting, key=lambda index: profiles[index].maximum - profiles[index].minimum, default=None)
