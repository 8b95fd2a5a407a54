"""Image classifiers: small networks for small images, and any timm model by name.

Every classifier takes RGB in [0, 1] and normalises inside. A teacher's normalisation therefore stays with its weights,
and a student, an attack or an evaluation can give the same tensor to any classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffclean.classifiers.airnet import AirNet
from diffclean.classifiers.resnets import preact_resnet18, resnet8, resnet9, resnet18, wrn_16_1
from diffclean.classifiers.weight_files import reason_of
from diffclean.errors import DiffcleanError, UsageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "resnet8-cifar": resnet8,
    "resnet9-cifar": resnet9,
    "resnet18-cifar": resnet18,
    "preact-resnet18": preact_resnet18,
    "wrn-16-1": wrn_16_1,
    "airnet": AirNet,
}
"""Our own networks, for images of about 32 to 64 px. Any other name is looked up in timm."""


class Classifier(nn.Module):
    """A network with its normalisation before it.

    Args:
        net: maps normalised (B, 3, H, W) to logits (B, num_classes).
        mean: the mean that is subtracted from R, G and B in [0, 1].
        std: the standard deviation that the difference is divided by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] -> logits (B, num_classes)."""
        logits: Tensor = self.net((images - self.mean) / self.std)
        return logits


def build(
    arch: str, num_classes: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Classifier:
    """A classifier with random weights (from torch's global generator).

    Args:
        arch: a name in `ARCHITECTURES`, or the name of a timm model.
        num_classes: the number of logits.
        mean: the mean for the normalisation; None stands for ImageNet's.
        std: the standard deviation for the normalisation; None stands for ImageNet's.

    Raises:
        UsageError: there is no such architecture.
    """
    check_arch(arch)
    if arch in ARCHITECTURES:
        net = ARCHITECTURES[arch](num_classes)
    else:
        import timm

        net = timm.create_model(arch, pretrained=False, num_classes=num_classes)
    return Classifier(net, mean or IMAGENET_MEAN, std or IMAGENET_STD)


@torch.no_grad()
def begin_from(model: Classifier, images: Tensor) -> None:
    """Compute the weights that a network takes from the training images instead of learning them, if it has such.

    Args:
        model: a new network.
        images: (N, 3, H, W) uint8 of the training set; some thousand are enough.
    """
    if isinstance(model.net, AirNet):
        model.net.begin_from((unit_floats(images) - model.mean.cpu()) / model.std.cpu())


def shapes_of(arch: str, num_classes: int) -> dict[str, torch.Size]:
    """The shapes of a classifier's weights, without allocating them, since some networks of timm have gigabytes.

    Raises:
        UsageError: there is no such architecture.
    """
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(arch, num_classes).state_dict().items()}


def check_arch(arch: str) -> None:
    """Refuse a name that `build` does not know, before any work.

    Raises:
        UsageError: there is no such architecture.
    """
    if arch in ARCHITECTURES:
        return
    import timm

    if not timm.is_model(arch):
        near = timm.list_models(f"*{arch}*")[:5]
        known = ", ".join(ARCHITECTURES)
        raise UsageError(
            f"There is no architecture {arch!r}.",
            f"Give one of {known}"
            + (f", or a timm model such as {', '.join(near)}." if near else ", or any timm model."),
        )


def predict(model: nn.Module, images: Tensor, batch_size: int = 512, bf16: bool = False) -> Tensor:
    """Compute logits in evaluation mode, on the device of the model.

    Args:
        model: a `Classifier`, which is left in evaluation mode.
        images: (N, 3, H, W) uint8.
        batch_size: the number of images in a forward pass.
        bf16: whether to compute in bfloat16 where that is safe (autocast).

    Returns:
        (N, num_classes) float32 on the CPU.
    """
    device = next(model.parameters()).device
    model.eval()
    parts = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for batch in images.split(batch_size):
            parts.append(model(unit_floats(batch.to(device))).float().cpu())
    return torch.cat(parts)


def unit_floats(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32 in [0, 1], channels last in memory, which is fast on CPUs and tensor cores."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def pick_device(name: str | None = None) -> torch.device:
    """The device to compute on; None or "auto" stands for CUDA where it works, else the CPU.

    Raises:
        UsageError: the name is not a device, or this machine does not have it.
    """
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {name!r} cannot be used here: {error}", "Give cpu, cuda, or auto for the best that works."
        ) from error
    return device


def check_takes(model: nn.Module, arch: str, size: tuple[int, int], device: torch.device) -> None:
    """Refuse images that a network cannot take, before any time is spent on them. The network is then in `eval` mode.

    Args:
        model: the network.
        arch: its name.
        size: (height, width) of the images in pixels.
        device: the device of the network.

    Raises:
        DiffcleanError: the network cannot take them.
    """
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, *size, device=device))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DiffcleanError(
            f"{arch} cannot take images of {size[1]}x{size[0]} px: {reason_of(error)}",
            "Resize the images to a size that it can take, for example: `size` 224",
        ) from error
