from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from diffclean.data.decode import decode
from diffclean.data.encode import ImageFormat, encode
from diffclean.data.item import ItemError

PIXELS = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)


@pytest.mark.parametrize("format", [ImageFormat.PNG, ImageFormat.WEBP])
@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[:1, :1], PIXELS[:, ::-1]], ids=["noise", "one", "not contiguous"])
def test_lossless(format: ImageFormat, pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(decode(encode(pixels, format)), pixels)


def test_png_is_the_default() -> None:
    assert encode(PIXELS) == encode(PIXELS, ImageFormat.PNG)
    assert encode(PIXELS).startswith(b"\x89PNG")


def test_jpeg_quality() -> None:
    flat = np.full((16, 16, 3), (10, 200, 90), np.uint8)
    assert np.abs(decode(encode(flat, ImageFormat.JPEG)).astype(int) - flat).max() <= 2
    assert len(encode(PIXELS, ImageFormat.JPEG, quality=30)) < len(encode(PIXELS, ImageFormat.JPEG))
    assert ImageFormat.JPEG.extension == "jpg"


@pytest.mark.parametrize("format", list(ImageFormat))
def test_same_pixels_same_bytes_and_nothing_else(format: ImageFormat) -> None:
    data = encode(PIXELS, format)
    assert data == encode(PIXELS.copy(), format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}[format]
        assert not image.getexif()
        assert not {"icc_profile", "exif", "xmp", "comment"} & image.info.keys()


def test_what_a_format_cannot_hold() -> None:
    with pytest.raises(ItemError, match="16383"):
        encode(np.zeros((1, 16_384, 3), np.uint8), ImageFormat.WEBP)
    with pytest.raises(ItemError, match="65500"):
        encode(np.zeros((65_501, 1, 3), np.uint8), ImageFormat.JPEG)
    assert decode(encode(np.zeros((1, 65_501, 3), np.uint8))).shape == (1, 65_501, 3)


def test_arguments_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode(PIXELS.astype(np.float32))
    with pytest.raises(ValueError, match="lossless"):
        encode(PIXELS, quality=80)
    with pytest.raises(ValueError, match=r"1\.\.100"):
        encode(PIXELS, ImageFormat.JPEG, quality=0)
