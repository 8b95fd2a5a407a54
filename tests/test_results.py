"""Results as JSON and as tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest

from diffclean.errors import DiffcleanError
from diffclean.evaluation.evaluate import Evaluation, Undefended
from diffclean.evaluation.metrics import rate
from diffclean.results import KEPT_BACK, WHERE_MEASURED, plain, table


@dataclass(frozen=True)
class Found:
    count: int
    share: float | None = field(default=None, metadata=WHERE_MEASURED)
    other: float | None = None
    rows: int = field(default=0, metadata=KEPT_BACK)


def test_what_was_not_measured_is_left_out_and_what_is_unknown_is_null() -> None:
    assert plain(Found(1)) == {"count": 1, "other": None}
    assert plain([Found(1, float("nan"), 0.5, rows=7)]) == [{"count": 1, "share": None, "other": 0.5}]


def test_a_result_that_says_itself_how_it_reads() -> None:
    @dataclass
    class Nested:
        inner: Found

        def for_json(self) -> dict[str, object]:
            return vars(self.inner)

    assert plain(Nested(Found(2, 0.5))) == {"count": 2, "share": 0.5, "other": None, "rows": 0}


def test_a_table_has_a_row_for_each_rate_of_each_model() -> None:
    pytest.importorskip("pandas")
    before = Undefended("t.pt", rate(9, 10), rate(8, 8), rate(0, 8))
    result = Evaluation("s.pt", "test", rate(8, 10), 10, {}, rate(1, 8), rate(6, 8), undefended=before)
    rows = result.to_pandas().set_index(["model", "measure"])
    assert len(rows) == 6
    assert rows.loc[("s.pt", "attack_success_rate"), "hits"] == 1
    assert rows.loc[("t.pt", "attack_success_rate"), "value"] == 1
    assert len(Evaluation("s.pt", "test", rate(8, 10), 10, {}).to_pandas()) == 1


def test_without_pandas_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DiffcleanError, match=r"(?s)not installed.*pip install pandas"):
        table([Found(1)])
