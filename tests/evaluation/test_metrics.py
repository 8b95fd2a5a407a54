import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffclean.evaluation.metrics import (
    attack_success_rate,
    auroc,
    clean_accuracy,
    defense_effectiveness,
    rate,
    robust_accuracy,
)

SHARES = st.floats(0, 1)


def test_worked_example() -> None:
    """Six triggered images, target 0: one is of the target class and counts for neither ASR nor RA."""
    labels = [0, 1, 1, 2, 2, 2]
    guessed = [0, 0, 1, 0, 2, 1]
    assert clean_accuracy(guessed, labels).value == pytest.approx(3 / 6)
    asr, ra = attack_success_rate(guessed, labels, 0), robust_accuracy(guessed, labels, 0)
    assert (asr.hits, asr.count) == (2, 5)
    assert (ra.hits, ra.count) == (2, 5)
    untriggered = [0, 1, 1, 2, 0, 1]
    landing = attack_success_rate(untriggered, labels, 0)
    assert (landing.hits, landing.count) == (1, 5), "the image of the target class does not count here either"


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals_as_published(hits: int, count: int, low: float, high: float) -> None:
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    found = rate(hits, count)
    assert found.value == hits / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)


def test_nothing_counted_is_not_a_number() -> None:
    found = attack_success_rate([0, 0], [0, 0], 0)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.count) == (0.0, 1.0, 0)
    assert str(found) == "no images"


def test_a_rate_for_people() -> None:
    assert str(rate(5, 10)) == "50.0 % (95 %: 23.7-76.3, 10 images)"


@given(st.integers(1, 2000), st.data())
def test_an_interval_holds_its_value(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    found = rate(hits, count)
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = rate(count - hits, count)
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-12)
    more = rate(10 * hits, 10 * count)
    assert more.high - more.low < found.high - found.low


def test_impossible_counts() -> None:
    with pytest.raises(ValueError, match="3 of 2"):
        rate(3, 2)
    with pytest.raises(ValueError, match="one length"):
        clean_accuracy([1, 2], [1])


@pytest.mark.parametrize(
    ("asr_before", "asr_after", "ca_before", "ca_after", "expected"),
    [
        (1.0, 0.0, 0.9, 0.9, 1.0),  # the attack gone, nothing lost
        (1.0, 1.0, 0.9, 0.9, 0.5),  # nothing done
        (1.0, 0.1, 0.92, 0.88, 0.93),  # (0.9 - 0.04 + 1) / 2
        (0.5, 0.9, 0.8, 0.9, 0.5),  # gains of ASR or CA count for nothing
        (0.0, 0.0, 1.0, 0.0, 0.0),  # all lost
    ],
)
def test_der(asr_before: float, asr_after: float, ca_before: float, ca_after: float, expected: float) -> None:
    assert defense_effectiveness(asr_before, asr_after, ca_before, ca_after) == pytest.approx(expected)


@given(SHARES, SHARES, SHARES, SHARES)
def test_der_is_a_share(asr_before: float, asr_after: float, ca_before: float, ca_after: float) -> None:
    assert 0 <= defense_effectiveness(asr_before, asr_after, ca_before, ca_after) <= 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
def test_asr_and_ra_share_the_images_of_other_classes(pairs: list[tuple[int, int]]) -> None:
    guessed, labels = zip(*pairs, strict=True)
    asr, ra = attack_success_rate(guessed, labels, 0), robust_accuracy(guessed, labels, 0)
    assert asr.count == ra.count
    assert asr.hits + ra.hits <= asr.count


def test_auroc_by_hand() -> None:
    """3 is above all three; 1 is above one and equal to another."""
    assert auroc([3, 1], [2, 1, 0]) == pytest.approx((3 + 1.5) / 6)
    assert auroc([5, 6], [1, 2]) == 1
    assert math.isnan(auroc([], [1.0]))
    assert math.isnan(auroc([1.0], []))


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auroc_counts_pairs(positive: list[int], negative: list[int]) -> None:
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    assert auroc(positive, negative) == pytest.approx(wins / len(positive) / len(negative))
