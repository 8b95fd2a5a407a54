"""Residual networks for small images (32 to 64 px), without early pooling, and with one global average at the end.

All of them map normalised (B, 3, H, W) to logits (B, num_classes), for any H and W of at least 16.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def _conv(n_in: int, n_out: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum (He et al. 2015, arXiv 1512.03385)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(n_in, n_out, stride), nn.BatchNorm2d(n_out)
        self.conv2, self.norm2 = _conv(n_out, n_out), nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(_conv(n_in, n_out, stride, kernel=1), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """The same with normalisation and ReLU before each convolution (He et al. 2016, arXiv 1603.05027)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(n_in), _conv(n_in, n_out, stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(n_out), _conv(n_out, n_out)
        self.shortcut = _conv(n_in, n_out, stride, kernel=1) if stride != 1 or n_in != n_out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        h = F.relu(self.norm1(x))
        skip = self.shortcut(h) if self.shortcut is not None else x
        return skip + self.conv2(F.relu(self.norm2(self.conv1(h))))


def _stages(block: type[BasicBlock] | type[PreActBlock], n_in: int, widths: tuple[int, ...]) -> list[nn.Module]:
    """Two blocks for each width; every stage but the first halves the side."""
    blocks: list[nn.Module] = []
    for stage, width in enumerate(widths):
        blocks += [block(n_in, width, 1 if stage == 0 else 2), block(width, width, 1)]
        n_in = width
    return blocks


def _head(width: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]


def resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem (11.2M parameters), the usual one for CIFAR."""
    stem = [_conv(3, 64), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*stem, *_stages(BasicBlock, 64, (64, 128, 256, 512)), *_head(512, num_classes))


def preact_resnet18(num_classes: int) -> nn.Module:
    """Pre-activation ResNet-18 (11.2M parameters), the usual victim in backdoor benchmarks."""
    end = [nn.BatchNorm2d(512), nn.ReLU(), *_head(512, num_classes)]
    return nn.Sequential(_conv(3, 64), *_stages(PreActBlock, 64, (64, 128, 256, 512)), *end)


def wrn_16_1(num_classes: int) -> nn.Module:
    """WRN-16-1 (0.2M parameters; Zagoruyko and Komodakis 2016, arXiv 1605.07146), a small student."""
    end = [nn.BatchNorm2d(64), nn.ReLU(), *_head(64, num_classes)]
    return nn.Sequential(_conv(3, 16), *_stages(PreActBlock, 16, (16, 32, 64)), *end)


class _Halve(nn.Module):
    """3x3 convolution, 2x2 maximum, then normalisation and ReLU, which in this order do a quarter of the work."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv, self.norm = _conv(n_in, n_out), nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / 2, W / 2)."""
        return F.relu(self.norm(F.max_pool2d(self.conv(x), 2)))


class _Residual(nn.Module):
    """x + f(x), where f is some 3x3 convolutions of one width."""

    def __init__(self, width: int, convolutions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(_conv_norm_relu(width, width, 1) for _ in range(convolutions)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same shape."""
        return x + self.body(x)


def _conv_norm_relu(n_in: int, n_out: int, stride: int) -> nn.Module:
    return nn.Sequential(_conv(n_in, n_out, stride), nn.BatchNorm2d(n_out), nn.ReLU())


def resnet8(num_classes: int) -> nn.Module:
    """A network for CPUs (1.3M parameters, 0.05 GMAC at 32 px).

    A 4x4 stem of stride 2 replaces work at full resolution, which costs a CPU more than it is worth here. The remaining
    convolutions run near the peak speed of its bf16 units.
    """
    stem = [nn.Conv2d(3, 64, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    first = [_Residual(64, 1), _conv_norm_relu(64, 128, stride=2)]
    second = [_Residual(128, 2), _conv_norm_relu(128, 256, stride=2), _Residual(256, 1)]
    return nn.Sequential(*stem, *first, *second, *_head(256, num_classes))


def resnet9(num_classes: int) -> nn.Module:
    """Page's ResNet-9 for fast CIFAR training at half its width (1.7M parameters, 0.09 GMAC at 32 px).

    It learns more from each image than `resnet8`, at about 1.7 times the work. Source: D. Page, "How to train your
    ResNet", 2018, www.myrtle.ai.
    """
    first = [_conv_norm_relu(3, 32, stride=1), _Halve(32, 64), _Residual(64, 2)]
    second = [_Halve(64, 128), _Halve(128, 256), _Residual(256, 2)]
    # The final maximum, and the small logits at the start, are Page's too.
    return nn.Sequential(*first, *second, nn.AdaptiveMaxPool2d(1), nn.Flatten(), _Scaled(256, num_classes, 0.125))


class _Scaled(nn.Linear):
    """A linear layer without bias, whose output is multiplied by a constant."""

    def __init__(self, n_in: int, n_out: int, scale: float) -> None:
        super().__init__(n_in, n_out, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        return super().forward(x) * self.scale
