import numpy as np

from diffclean.datasets.bits import Purpose, ids_of, random_bits


def test_bits_are_spread_evenly_and_differ_by_purpose() -> None:
    ids = ids_of(map(str, range(4000)))
    order, augment = random_bits(ids, 1, 0, Purpose.ORDER), random_bits(ids, 1, 0, Purpose.AUGMENT)
    for shift in (0, 16, 32, 48, 63):
        ones = (order >> np.uint64(shift)) & np.uint64(1)
        others = (augment >> np.uint64(shift)) & np.uint64(1)
        assert 0.46 < ones.mean() < 0.54
        assert 0.46 < (ones == others).mean() < 0.54
    assert len(set(order.tolist())) == 4000
    assert (random_bits(ids, 2**70, -1) == random_bits(ids, 2**70 % 2**64, 2**64 - 1)).all(), "any seed will do"
