"""The detectors by name."""

from __future__ import annotations

from diffclean.detection.base import Detector
from diffclean.detection.clustering import Clustering
from diffclean.detection.denoised import Denoised
from diffclean.detection.isolate import Isolate
from diffclean.detection.logit_difference import LogitDifference
from diffclean.detection.loss_isolation import LossIsolation
from diffclean.detection.out_of_fold import OutOfFold
from diffclean.detection.spectral import Spectral
from diffclean.detection.variation_drop import VariationDrop
from diffclean.errors import UsageError

_ALL: tuple[Detector, ...] = (
    Isolate(),
    VariationDrop(),
    OutOfFold(),
    Spectral(),
    Clustering(),
    LossIsolation(),
    Denoised(),
    LogitDifference(),
)
DETECTORS: dict[str, Detector] = {detector.name: detector for detector in _ALL}


def get(name: str) -> Detector:
    """The detector with the given name.

    Raises:
        UsageError: there is no such detector; the error lists the names.
    """
    if name not in DETECTORS:
        raise UsageError(f"There is no detector {name!r}.", f"The detectors are: {', '.join(DETECTORS)}.")
    return DETECTORS[name]
