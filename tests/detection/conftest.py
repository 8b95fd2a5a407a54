"""What several detectors are tried on."""

from __future__ import annotations

import pytest
from poisoned_shapes import PoisonedShapes, checker, poison_shapes


@pytest.fixture(scope="session")
def checkered_shapes(tmp_path_factory: pytest.TempPathFactory) -> PoisonedShapes:
    """A fifth of one class are other shapes under a checker, which the teacher falls for."""
    return poison_shapes(tmp_path_factory.mktemp("checkered") / "data", checker)


@pytest.fixture(scope="session")
def clean_shapes(tmp_path_factory: pytest.TempPathFactory) -> PoisonedShapes:
    """The same without poison."""
    return poison_shapes(tmp_path_factory.mktemp("clean") / "data", None)
