"""`diffclean` with one more network, `small`, without batch normalisation: what test_distributed starts by torchrun."""

import sys

from torch import nn

from diffclean.classifiers import networks
from diffclean.cli.main import main


def small(classes: int) -> nn.Module:
    """A few thousand weights."""
    first = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, classes))


networks.ARCHITECTURES["small"] = small

if __name__ == "__main__":
    sys.exit(main())
