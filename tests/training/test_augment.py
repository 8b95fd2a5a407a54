import numpy as np
import pytest
import torch

from diffclean.datasets.bits import ids_of, random_bits
from diffclean.training.augment import crop_and_flip, flipped_in_turn, turn_and_zoom


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


def test_what_lies_outside_the_image_is_reflected_at_its_edges() -> None:
    """Each crop is one of the nine of the image that numpy has padded, or the mirror image of one."""
    image = torch.arange(5 * 6, dtype=torch.uint8).view(1, 1, 5, 6).expand(1, 3, 5, 6)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    crops = [padded[0, :, y : y + 5, x : x + 6] for y in range(3) for x in range(3)]
    expected = {crop.tobytes() for one in crops for crop in (one, one[:, :, ::-1])}
    made = crop_and_flip(image.expand(300, 3, 5, 6), bits(300), pad=1)
    assert {one.numpy().tobytes() for one in made} == expected


def test_an_image_is_treated_alike_in_any_batch() -> None:
    images = torch.randint(0, 256, (10, 3, 16, 16), dtype=torch.uint8)
    whole = crop_and_flip(images, bits(10))
    assert torch.equal(whole[4:7], crop_and_flip(images[4:7], bits(10)[4:7]))
    turned = turn_and_zoom(images, bits(10), 30, 0.2)
    assert torch.equal(turned[4:7], turn_and_zoom(images[4:7], bits(10)[4:7], 30, 0.2))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_turns_are_of_any_angle_up_to_the_largest_and_keep_shapes(height: int, width: int) -> None:
    """A bright dot to the right of the centre goes round it, by an even share either way, at its distance."""
    images = torch.zeros(300, 3, height, width, dtype=torch.uint8)
    images[:, :, height // 2 - 1 : height // 2 + 1, width // 2 + 6 : width // 2 + 8] = 255
    x, y = dots(turn_and_zoom(images, bits(300), 40, 0))
    angles = torch.rad2deg(torch.atan2(y, x))
    assert 36 < angles.abs().max() <= 41
    assert abs(angles.mean()) < 4
    assert angles.abs().quantile(0.5).item() == pytest.approx(20, abs=3)
    assert torch.allclose(torch.hypot(x, y), torch.full_like(x, 7), atol=0.3)


def test_zooms_are_as_often_in_as_out() -> None:
    images = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    images[:, :, 15:17, 21:23] = 255
    x, y = dots(turn_and_zoom(images, bits(400), 0, 0.5))
    scale = (x / 6).log2()
    assert y.abs().max() < 0.2
    assert -0.6 <= scale.min() < -0.5
    assert 0.5 < scale.max() <= 0.6
    assert abs(scale.mean()) < 0.05


def test_no_turn_and_no_zoom_change_nothing() -> None:
    images = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8)
    assert torch.equal(turn_and_zoom(images, bits(5), 0, 0), images)


def dots(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the bright spot of each image is, from the centre: to the right and down, in pixels."""
    weights = images[:, 0].double()
    total = weights.sum((1, 2))
    height, width = weights.shape[1:]
    x = (weights.sum(1) * (torch.arange(width) - (width - 1) / 2)).sum(1) / total
    y = (weights.sum(2) * (torch.arange(height) - (height - 1) / 2)).sum(1) / total
    return x, y


def test_flips_in_turn_show_both_forms_of_every_image_in_two_epochs() -> None:
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    first = bits(40, seed=9)
    shown = [crop_and_flip(images, flipped_in_turn(bits(40, seed=epoch), first, epoch), pad=0) for epoch in range(3)]
    kept = (shown[0] == images).flatten(1).all(1)
    assert 5 < kept.sum() < 35
    assert torch.equal(shown[1], shown[0].flip(3))
    assert torch.equal(shown[2], shown[0])


def test_flips_in_turn_leave_the_shifts_as_they_are() -> None:
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(40, 3, 16, 16)
    random = bits(40)
    assert torch.equal(crop_and_flip(images, flipped_in_turn(random, bits(40, 9), 1)), crop_and_flip(images, random))
