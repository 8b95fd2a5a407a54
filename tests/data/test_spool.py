from __future__ import annotations

import resource

import pytest

from diffclean.data import spool
from diffclean.data.spool import Spool
from diffclean.errors import DiffcleanError


@pytest.mark.parametrize("in_memory", [10, 10**6])
def test_values_come_back_in_order_as_often_as_wanted(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """In memory or in a file, and after a look that ended early; names that are not Unicode survive."""
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", in_memory)
    values = [["caf\udce9\n", number, None] for number in range(100)]
    found = Spool()
    for value in values[:60]:
        found.append(value)
    assert list(found) == values[:60]
    assert next(iter(found)) == values[0]
    for value in values[60:]:
        found.append(value)
    assert list(found) == list(found) == values
    assert len(found) == 100
    assert list(Spool()) == []


def test_a_full_disk_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_IN_MEMORY_BYTES", 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    found = Spool()
    try:
        with pytest.raises(DiffcleanError, match="temporary file") as caught:
            found.append("x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "TMPDIR" in caught.value.hint
