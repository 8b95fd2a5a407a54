import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TINY_VERB = Path(__file__).parent / "tiny_verb.py"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Two small verbs; `tiny.main("tiny", "--steps", "3")` runs one, and `tiny.__file__` is a program."""
    spec = importlib.util.spec_from_file_location("tiny_verb", TINY_VERB)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
