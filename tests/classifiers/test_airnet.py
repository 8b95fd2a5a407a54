import torch

from diffclean.classifiers.airnet import AirNet
from diffclean.classifiers.networks import begin_from, build


def test_the_first_convolution_makes_patches_uncorrelated_with_variance_one() -> None:
    torch.manual_seed(0)
    images = 3 * torch.randn(200, 3, 24, 24)  # every direction has a variance of 9
    correlations = answers_of_first(images)
    assert torch.allclose(correlations, torch.eye(12), atol=0.1)


def test_fine_detail_that_is_hardly_there_is_not_blown_up() -> None:
    """Colour is stored at half the size in most JPEG files: what is left of it in a pixel is noise."""
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.randn(200, 3, 6, 6), size=(24, 24), mode="bilinear")
    correlations = answers_of_first(smooth + 0.02 * torch.randn(200, 3, 24, 24))
    variances = correlations.diagonal().sort().values
    assert variances[-1] > 0.9
    assert variances[0] < 0.05  # 1 without the least variance
    assert torch.allclose(correlations, correlations.diagonal().diag(), atol=0.1)


def answers_of_first(images: torch.Tensor) -> torch.Tensor:
    """(12, 12), the products of the first convolution's answers to the images, each with each, averaged."""
    net = AirNet(5)
    net.begin_from(images)
    found = net.first(images).detach().permute(1, 0, 2, 3).flatten(1)
    positive, negative = found[:12], found[12:]
    assert torch.allclose(positive, -negative, atol=1e-4)
    return positive @ positive.T / positive.shape[1]


def test_flat_images_give_finite_filters() -> None:
    model = build("airnet", 3)
    begin_from(model, torch.full((4, 3, 16, 16), 7, dtype=torch.uint8))
    assert all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_other_networks_begin_as_they_are() -> None:
    model = build("wrn-16-1", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    begin_from(model, torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_it_takes_images_from_16_px() -> None:
    for side in (16, 33, 64):
        assert AirNet(4)(torch.rand(2, 3, side, side)).shape == (2, 4)
