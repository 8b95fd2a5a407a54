"""Pictures larger than the square, by every family: latent models look at them in windows as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_models import FAMILIES, SIDE

from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_regenerates_a_large_picture_in_windows(family: str, engine_of: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "source").mkdir()
    large = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    Image.fromarray(large).save(tmp_path / "source/large.png")
    Image.fromarray(large[:20, :20]).save(tmp_path / "source/small.png")
    settings = Settings(
        engine=str(engine_of(family)), runtime="onnxruntime", steps=2, strength=0.5, guidance=1.0, batch=4, detail=80
    )
    outs = [
        variate(tmp_path / "source", tmp_path / f"{workers}", settings, concurrency=Concurrency(1, workers, threads=1))
        for workers in (1, 3)
    ]
    for report in outs:
        assert report.failed == []
        assert report.windows > 8
        made = np.asarray(Image.open(report.out / "large_v00.png"))
        assert made.shape == (60, 90, 3)
        assert made.std() > 5
    first, second = ((report.out / "large_v00.png").read_bytes() for report in outs)
    assert first == second
    one_window = variate(tmp_path / "source", tmp_path / "plain", Settings(**{**vars(settings), "detail": SIDE}))
    small = [(out / "small_v00.png").read_bytes() for out in (outs[0].out, one_window.out)]
    assert small[0] == small[1]
    assert one_window.windows == 2
