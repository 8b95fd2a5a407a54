from __future__ import annotations

import io
import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from diffclean.data.decode import DecodeError, Limits, decode, decode_for

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LOSSLESS = ["PNG", "BMP", "TIFF", "PPM", "WEBP"]


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def gradient(height: int = 6, width: int = 8) -> np.ndarray:
    """(H, W, 3) uint8, smooth, with no symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 40, columns * 30, rows * 5 + columns * 11 + 20], axis=2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_keep_every_pixel(format: str) -> None:
    pixels = gradient()
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode(saved(Image.fromarray(pixels), format, **options))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(("format", "tolerance"), [("JPEG", 12), ("GIF", 30)])
def test_lossy_formats_come_close(format: str, tolerance: int) -> None:
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    found = decode(saved(Image.fromarray(gradient()), format, **options))
    assert np.abs(found.astype(int) - gradient()).max() <= tolerance


def test_the_content_counts_not_the_format_of_the_name() -> None:
    # A phone's JPEG with a second picture in it (MPO) is a JPEG.
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    found = decode(saved(first, "MPO", save_all=True, append_images=[second], quality=95))
    assert np.abs(found.astype(int) - [254, 0, 0]).max() <= 2


# What EXIF says where row 0 and column 0 of the stored picture are (EXIF 2.3, tag 0x0112), as numpy undoes it.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    found = decode(saved(Image.fromarray(gradient()), format, exif=exif, **options))
    expected = UPRIGHT[orientation](gradient())
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (4 if format == "JPEG" else 0)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
def test_broken_exif_does_not_cost_the_image(exif: bytes) -> None:
    np.testing.assert_array_equal(decode(saved(Image.fromarray(gradient()), "PNG", exif=exif)), gradient())


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientations_that_mean_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(saved(Image.fromarray(gradient()), "PNG", exif=exif)), gradient())


@pytest.mark.parametrize(
    ("mode", "format"), [("1", "PNG"), ("1", "PPM"), ("L", "PNG"), ("L", "BMP"), ("L", "TIFF"), ("L", "JPEG")]
)
def test_grey(mode: str, format: str) -> None:
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 255
    found = decode(saved(Image.fromarray(pixels).convert(mode), format))
    np.testing.assert_array_equal(found, np.repeat(pixels[:, :, None], 3, axis=2))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format: str) -> None:
    wide = np.array([[0, 128, 257, 32768, 40000, 65535]], np.uint16)
    found = decode(saved(Image.fromarray(wide), format))
    np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 128, 156, 255])


def test_sixteen_bit_colour() -> None:
    # Pillow writes no 48-bit PNG, so one by hand: a red and a mid-grey pixel.
    raw = b"\0" + struct.pack(">6H", 65535, 0, 0, 32768, 32768, 32768)
    found = decode(png_chunks((b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw))))
    assert np.abs(found.astype(int) - [[[255, 0, 0], [128, 128, 128]]]).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 1 << 29, 1 << 30], [0, 128, 255]),
        ([70000, 70000, 70000], [0, 0, 0]),
    ],
)
def test_32_bit_integers(values: list[int], expected: list[int]) -> None:
    found = decode(saved(Image.fromarray(np.array([values], np.int32)), "TIFF"))
    np.testing.assert_array_equal(found[0, :, 0], expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 99.6, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    found = decode(saved(Image.fromarray(np.array([values], np.float32)), "TIFF"))
    np.testing.assert_array_equal(found[0, :, 0], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(DecodeError, match="finite"):
        decode(saved(Image.fromarray(np.array([[0.5, bad]], np.float32)), "TIFF"))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk(format: str) -> None:
    image = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    found = decode(saved(image, format, **({"quality": 95} if format == "JPEG" else {})))
    assert np.abs(found[:, :8].astype(int) - [255, 0, 0]).max() <= 3
    assert np.abs(found[:, 8:].astype(int) - [255, 255, 255]).max() <= 3


def test_ycbcr_and_lab() -> None:
    image = Image.new("RGB", (8, 8), (200, 60, 30))
    assert np.abs(decode(saved(image.convert("YCbCr"), "TIFF")).astype(int) - [200, 60, 30]).max() <= 3
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    in_lab = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    assert in_lab is not None
    assert np.abs(decode(saved(in_lab, "TIFF")).astype(int) - [200, 60, 30]).max() <= 4


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("P", "PNG"), ("P", "GIF")]
)
def test_transparency_lies_over_white(mode: str, format: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255  # left transparent black, right opaque black
    # To GIF Pillow makes a palette with transparency itself, and drops the alpha of one that it is given.
    image = Image.fromarray(pixels) if format == "GIF" else Image.fromarray(pixels).convert(mode)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    found = decode(saved(image, format, **options))
    np.testing.assert_array_equal(found[:, :4], 255)
    np.testing.assert_array_equal(found[:, 4:], 0)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_white_too(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    image.paste(Image.new(mode, (2, 4), "gray"), (2, 0))
    found = decode(saved(image, "PNG", transparency=0 if mode == "L" else (0, 0, 0)))
    np.testing.assert_array_equal(found[:, :2], 255)
    np.testing.assert_array_equal(found[:, 2:], 128)


def test_half_transparency_is_mixed_with_white() -> None:
    found = decode(saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG"))
    assert np.abs(found.astype(int) - 127).max() <= 1


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode(saved(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000)])
@pytest.mark.parametrize("format", [*LOSSLESS, "GIF", "JPEG"])
def test_tiny_and_thin(format: str, size: tuple[int, int]) -> None:
    assert decode(saved(Image.new("RGB", size, "white"), format)).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, this is a note\n", "text"),
        ("<svg>äöü</svg>".encode() * 200, "text"),
        (b"\0\1\2\3" * 50, "not an image that can be read here"),
        (b"\0\0\0\x1cftypheic" + b"\0" * 99, "not an image that can be read here"),
        (b"\x89PNG\r\n", "header"),
        (b"%PDF-1.4 \xff\xfe", "not an image that can be read here"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(data)


@pytest.mark.parametrize("format", ["EPS", "DDS", "IM", "PDF", "XBM"])
def test_formats_that_are_not_allowed(format: str) -> None:
    with pytest.raises(DecodeError, match="not an image"):
        decode(saved(Image.new("1" if format == "XBM" else "RGB", (16, 16)), format))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF"])
def test_truncated(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(noise), format)
    with pytest.raises(DecodeError, match="truncated"):
        decode(data[: len(data) // 2])


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    packed = (
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_bomb_is_refused_by_its_header() -> None:
    # 100000 x 60000: 18 GB of pixels in 100 bytes. Decoding it would take the test machine down.
    header = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
    with pytest.raises(DecodeError, match="60000x50000 pixels; the limit is 100000000"):
        decode(png_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100))))


def test_a_tile_larger_than_its_picture_is_a_bomb_too() -> None:
    def entry(tag: int, kind: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, 1, value)

    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 65520),
        (323, 65520),
        (324, 8),
        (325, 8),
    ]
    data = b"II*\0" + struct.pack("<I", 16) + zlib.compress(b"")[:8] + struct.pack("<H", len(tags))
    data += b"".join(entry(tag, 4, value) for tag, value in tags) + bytes(4)
    with pytest.raises(DecodeError, match="65520x65520"):
        decode(data)


def test_limits_are_options() -> None:
    data = saved(Image.new("RGB", (20, 10)), "PNG")
    assert decode(data, Limits(pixels=200, side=20)).shape == (10, 20, 3)
    with pytest.raises(DecodeError, match="20x10 pixels; the limit is 199"):
        decode(data, Limits(pixels=199))
    with pytest.raises(DecodeError, match="the limit is 19 a side"):
        decode(data, Limits(side=19))


def test_no_global_limit_of_pillow_gets_in_the_way() -> None:
    # More than Pillow's own 179 million: one bit a pixel keeps the test light on memory.
    data = saved(Image.new("1", (60_000, 3_000)), "PNG")
    with pytest.raises(DecodeError, match="the limit is 179999999"):
        decode(data, Limits(pixels=179_999_999))


def test_threads_do_not_disturb_each_other() -> None:
    good = {colour: saved(Image.new("RGB", (40, 40), colour), "PNG") for colour in ("red", "lime", "blue")}
    wrong: list[str] = []

    def work(colour: str) -> None:
        for _ in range(30):
            if not (decode(good[colour]) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))).all():
                wrong.append(colour)
            with pytest.raises(DecodeError):
                decode(good[colour], Limits(pixels=10))

    threads = [threading.Thread(target=work, args=(colour,)) for colour in good]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def seeds() -> list[bytes]:
    image = Image.fromarray(gradient(9, 7))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [saved(image, format) for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")]
    files += [saved(image, "JPEG", progressive=True, exif=exif), saved(image.convert("CMYK"), "JPEG")]
    files += [saved(image, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    files += [saved(image.convert("P"), "PNG", transparency=1), saved(image.convert("RGBA"), "WEBP", lossless=True)]
    files += [saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]), saved(image.convert("1"), "PPM")]
    files += [saved(Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 999), f) for f in ("PNG", "TIFF")]
    return files


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["set", "cut", "insert", "drop"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(seeds()), MUTATIONS)
def test_damaged_files_decode_or_say_why(data: bytes, mutations: list[tuple[str, float, bytes]]) -> None:
    for what, where, value in mutations:
        at = int(where * len(data))
        if what == "cut":
            data = data[:at]
        elif what == "insert":
            data = data[:at] + value + data[at:]
        else:
            data = data[:at] + (value if what == "set" else b"") + data[at + len(value) :]
    limits = Limits(pixels=1_000_000)
    reasons: list[str] = []
    try:
        pixels = decode(data, limits)
    except DecodeError as error:
        reasons.append(error.message)
        return
    finally:
        assert all(0 < len(reason) < 200 for reason in reasons)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= limits.pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_decoded_small_and_keeps_its_size_and_looks(orientation: int) -> None:
    y, x = np.mgrid[0:400, 0:640]
    slope = np.stack([x / 640, y / 400, (x + y) / 1040], axis=-1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray((slope * 255).astype(np.uint8)).save(file, "JPEG", quality=95, exif=exif)
    full = decode(file.getvalue())
    small, (width, height) = decode_for(file.getvalue(), 64)
    assert (height, width) == full.shape[:2]
    assert 2 * 64 <= min(small.shape[:2]) < min(full.shape[:2])
    reduced = np.asarray(Image.fromarray(full).resize(small.shape[1::-1], Image.Resampling.BOX)).astype(int)
    assert np.abs(reduced - small).max() <= 6


def test_a_small_or_lossless_image_is_decoded_whole() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    found, size = decode_for(file.getvalue(), 16)
    np.testing.assert_array_equal(found, pixels)
    assert size == (200, 300)
