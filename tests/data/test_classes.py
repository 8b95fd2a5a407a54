from __future__ import annotations

import pytest

from diffclean.data.classes import checked_classes, class_to_idx
from diffclean.errors import DiffcleanError


def test_labels_are_sorted_by_bytes() -> None:
    assert class_to_idx(["b", "a", "", "B", "é", "%FF", "a"]) == {"B": 0, "a": 1, "b": 2, "é": 3, "%FF": 4}
    assert class_to_idx([""]) == {}


def test_stored_numbers_win_over_order() -> None:
    assert list(checked_classes({"z": 1, "a": 2, "m": 0}).items()) == [("m", 0), ("z", 1), ("a", 2)]


@pytest.mark.parametrize("stored", [None, [], {"a": 1}, {"a": 0, "b": 0}, {"a": "0"}, {"a": False}, {"a": 0, "b": 2}])
def test_what_is_no_class_to_idx(stored: object) -> None:
    with pytest.raises(DiffcleanError, match="class_to_idx"):
        checked_classes(stored)
