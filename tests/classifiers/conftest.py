import pytest


@pytest.fixture(autouse=True, scope="session")
def networks(tiny_archs: None) -> None:
    """The small networks are there for every test of this folder."""
