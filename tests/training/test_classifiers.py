import pytest
import torch

from diffclean.errors import UsageError
from diffclean.training.augment import crop_and_flip
from diffclean.training.classifiers import ARCHITECTURES, build, pick_device, predict, unit_floats


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "resnet10t"])
def test_every_architecture_takes_images_in_0_1(arch: str) -> None:
    model = build(arch, 7)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arch", "millions"), [("resnet18-cifar", 11.17), ("preact-resnet18", 11.17), ("wrn-16-1", 0.17)]
)
def test_sizes_are_those_of_the_papers(arch: str, millions: float) -> None:
    assert sum(p.numel() for p in build(arch, 10).parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_normalisation_is_inside() -> None:
    images = torch.rand(2, 3, 32, 32)
    torch.manual_seed(0)
    plain = build("wrn-16-1", 3, (0, 0, 0), (1, 1, 1)).eval()
    torch.manual_seed(0)
    own = build("wrn-16-1", 3, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)).eval()
    by_hand = (images - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    assert torch.allclose(own(images), plain(by_hand), atol=1e-5)
    assert {"mean", "std"} <= set(own.state_dict())


def test_predictions_do_not_depend_on_the_batch() -> None:
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    model = build("wrn-16-1", 3)
    one, other = predict(model, images, batch_size=2), predict(model, images, batch_size=5)
    assert one.dtype == torch.float32
    assert torch.allclose(one, other, atol=1e-5)
    assert not model.training


def test_unit_floats() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert unit_floats(images).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match=r"(?s)'resnet19'.*resnet18-cifar"):
        build("resnet19", 10)
    with pytest.raises(UsageError, match=r"(?s)'gpu0'.*auto, cpu, cuda"):
        pick_device("gpu0")
    assert pick_device("cpu").type == "cpu"
    assert pick_device(None) == pick_device("auto")


def test_augmentation_shifts_and_mirrors() -> None:
    """Each row holds its own number, so a crop shows how far it was shifted and a column whether it was mirrored."""
    rows = torch.arange(16, dtype=torch.uint8).view(1, 1, 16, 1).expand(400, 3, 16, 16).clone()
    rows[:, 1] = torch.arange(16, dtype=torch.uint8)
    made = crop_and_flip(rows, torch.Generator().manual_seed(0), pad=2)
    shifts = made[:, 0, 8, 0].int() - 8
    assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    mirrored = made[:, 1, 0, 8] < made[:, 1, 0, 7]
    assert 0.4 < mirrored.float().mean() < 0.6
    assert made.dtype == torch.uint8
    same = crop_and_flip(rows, torch.Generator().manual_seed(0), pad=2)
    assert torch.equal(made, same)


def test_augmentation_without_a_shift_only_mirrors() -> None:
    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8)
    made = crop_and_flip(images, torch.Generator().manual_seed(0), pad=0)
    kept = (made == images).flatten(1).all(1)
    assert 0 < kept.sum() < 20
    assert torch.equal(made[~kept], images[~kept].flip(3))
