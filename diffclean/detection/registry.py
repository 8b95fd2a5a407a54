"""The detectors there are."""

from __future__ import annotations

from diffclean.detection.base import Detector
from diffclean.detection.isolate import Isolate
from diffclean.detection.variation_drop import VariationDrop
from diffclean.errors import UsageError

_ALL: tuple[Detector, ...] = (Isolate(), VariationDrop())
DETECTORS: dict[str, Detector] = {detector.name: detector for detector in _ALL}


def get(name: str) -> Detector:
    """The detector of that name.

    Raises:
        UsageError: there is none; lists those there are.
    """
    if name not in DETECTORS:
        raise UsageError(f"There is no detector {name!r}.", f"There are: {', '.join(DETECTORS)}.")
    return DETECTORS[name]
