"""The type of decoded images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB of one image; (B, H, W, 3) if a function says that it takes several."""
