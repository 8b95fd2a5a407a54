"""diffclean: train on image data that you cannot trust.

Regenerate every image with an image-variation diffusion model, then distil a student from the suspect teacher on the
variations alone (Struppek et al., arXiv 2310.06372). docs/python.md describes the functions that are offered here. They
are loaded when they are first used, so that importing diffclean is fast.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffclean.api.clean import clean
    from diffclean.api.convert import convert
    from diffclean.api.distill import distill
    from diffclean.api.doctor import doctor
    from diffclean.api.evaluate import evaluate, evaluate_variations
    from diffclean.api.export import export
    from diffclean.api.poison import poison
    from diffclean.api.report import report
    from diffclean.api.suspects import find_suspects
    from diffclean.api.train import train
    from diffclean.api.variate import variate
    from diffclean.api.varier import Varier
    from diffclean.errors import DiffcleanError

__version__ = "0.1.0"

__all__ = [
    "DiffcleanError",
    "Varier",
    "__version__",
    "clean",
    "convert",
    "distill",
    "doctor",
    "evaluate",
    "evaluate_variations",
    "export",
    "find_suspects",
    "poison",
    "report",
    "train",
    "variate",
]

_OFFERED = {
    "DiffcleanError": "diffclean.errors",
    "Varier": "diffclean.api.varier",
    "clean": "diffclean.api.clean",
    "convert": "diffclean.api.convert",
    "distill": "diffclean.api.distill",
    "doctor": "diffclean.api.doctor",
    "evaluate": "diffclean.api.evaluate",
    "evaluate_variations": "diffclean.api.evaluate",
    "export": "diffclean.api.export",
    "find_suspects": "diffclean.api.suspects",
    "poison": "diffclean.api.poison",
    "report": "diffclean.api.report",
    "train": "diffclean.api.train",
    "variate": "diffclean.api.variate",
}

# Unless this is set before they are imported, ONNX Runtime's wheels report usage to their maker, Hugging Face's library
# adds usage data to its requests, and a Ray cluster that is started here reports too. Users with confidential data want
# none of that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'diffclean' has no attribute {name!r}")
    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Door(ModuleType):
    """A module type whose functions cannot be hidden by a package of the same name.

    When `diffclean.export.cache` is imported, Python binds the package `diffclean.export` as an attribute of this
    module, where users expect the function `export`. This class prevents that. `from diffclean.export import cache`
    still works; only `import diffclean.export.cache as cache`, which looks for the package in that attribute, fails.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _OFFERED and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
