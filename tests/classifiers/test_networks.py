import pytest
import torch

from diffclean.classifiers.networks import ARCHITECTURES, build, pick_device, predict, unit_floats
from diffclean.errors import UsageError


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
    with pytest.raises(UsageError, match=r"(?s)'gpu0'.*cpu, cuda, or auto"):
        pick_device("gpu0")
    assert pick_device("cpu").type == "cpu"
    assert pick_device(None) == pick_device("auto")
