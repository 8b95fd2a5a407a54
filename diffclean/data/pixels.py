"""The form in which decoded images are handed on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB of one image; (B, H, W, 3) where a function says that it takes several."""
