import numpy as np
import torch

from diffclean.training.augment import Purpose, crop_and_flip, ids_of, random_bits


def bits(count: int, seed: int = 0) -> np.ndarray:
    return random_bits(ids_of(map(str, range(count))), seed)


def test_augmentation_shifts_and_mirrors() -> None:
    """Each row holds its own number, so a crop shows how far it was shifted and a column whether it was mirrored."""
    rows = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(400, 3, 16, 16).clone()
    rows[:, 1] = torch.arange(16, dtype=torch.uint8)
    made = crop_and_flip(rows, bits(400), pad=2)
    shifts = made[:, 0, 8, 0].int() - 8
    assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    mirrored = made[:, 1, 0, 8] < made[:, 1, 0, 7]
    assert 0.4 < mirrored.float().mean() < 0.6
    assert made.dtype == torch.uint8
    assert torch.equal(made, crop_and_flip(rows, bits(400), pad=2))
    assert not torch.equal(made, crop_and_flip(rows, bits(400, seed=1), pad=2))


def test_augmentation_without_a_shift_only_mirrors() -> None:
    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8)
    made = crop_and_flip(images, bits(20), pad=0)
    kept = (made == images).flatten(1).all(1)
    assert 0 < kept.sum() < 20
    assert torch.equal(made[~kept], images[~kept].flip(3))


def test_an_image_is_treated_alike_in_any_batch() -> None:
    images = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8)
    whole = crop_and_flip(images, bits(10))
    assert torch.equal(whole[4:7], crop_and_flip(images[4:7], bits(10)[4:7]))


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
