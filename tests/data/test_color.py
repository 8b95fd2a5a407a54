"""The right pixel for every way in which a file says what its numbers mean."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from image_files import DISPLAY_P3, SRGB, icc_profile, png_chunks, png_pixel, saved, tiff
from PIL import Image

from diffclean.data.decode import DecodeError, decode

P3 = icc_profile(b"RGB ", DISPLAY_P3, curve=2.2)
"""With this curve (200, 60, 60) is (219, 37, 49) in sRGB; with the curve of sRGB it is (217, 42, 52)."""


def first(data: bytes) -> list[int]:
    return decode(data)[0, 0].tolist()


def close(found: list[int], expected: list[int], levels: int) -> bool:
    return max(abs(one - other) for one, other in zip(found, expected, strict=True)) <= levels


@pytest.mark.parametrize(
    ("bits", "value", "packed"),
    [(1, 0, b"\0"), (1, 1, b"\x80"), (2, 1, b"\x40"), (4, 5, b"\x50"), (8, 85, b"\x55"), (16, 30000, b"\x75\x30")],
)
def test_a_transparent_grey_value_is_white_at_every_depth(bits: int, value: int, packed: bytes) -> None:
    hidden = struct.pack(">H", value)
    assert first(png_pixel(bits, 0, packed, (b"tRNS", hidden))) == [255, 255, 255]
    other = struct.pack(">H", (value + 1) % 2**bits)
    grey = round(value * 255 / (2**bits - 1))
    assert first(png_pixel(bits, 0, packed, (b"tRNS", other))) == [grey] * 3


def test_only_the_exact_colour_is_transparent() -> None:
    row = bytes([10, 20, 30, 10, 20, 31])
    found = decode(png_pixel(8, 2, row, (b"tRNS", struct.pack(">3H", 10, 20, 30)), size=(2, 1)))
    assert found.tolist() == [[[255, 255, 255], [10, 20, 31]]]


def test_a_transparent_colour_of_sixteen_bits_is_refused_and_not_guessed() -> None:
    data = png_pixel(16, 2, struct.pack(">3H", 30000, 1, 2), (b"tRNS", struct.pack(">3H", 30000, 1, 2)))
    with pytest.raises(DecodeError, match=r"not supported here \(PNG of 16 bits with a transparent colour"):
        decode(data)


def test_a_palette_can_be_half_transparent() -> None:
    palette, alpha = bytes([0, 0, 0, 100, 0, 0]), bytes([255, 128])
    found = decode(png_pixel(8, 3, b"\0\1", (b"PLTE", palette), (b"tRNS", alpha), size=(2, 1)))
    assert found[0, 0].tolist() == [0, 0, 0]
    assert close(found[0, 1].tolist(), [177, 127, 127], 1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_display_p3_becomes_srgb(format: str) -> None:
    options: dict[str, Any] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }.get(format, {})
    image = Image.new("RGB", (16, 16), (200, 60, 60))
    assert close(first(saved(image, format, icc_profile=P3, **options)), [219, 37, 49], 2)


def test_the_curve_of_a_profile_counts() -> None:
    data = saved(Image.new("RGB", (16, 16), (200, 60, 60)), "PNG", icc_profile=icc_profile(b"RGB ", DISPLAY_P3))
    assert close(first(data), [217, 42, 52], 1)


def test_a_profile_that_says_srgb_changes_no_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(pixels), "PNG", icc_profile=icc_profile(b"RGB ", SRGB))
    np.testing.assert_array_equal(decode(data), pixels)


def test_alpha_stays_when_a_profile_is_applied() -> None:
    image = Image.new("RGBA", (2, 1), (200, 60, 60, 255))
    image.putpixel((1, 0), (200, 60, 60, 0))
    found = decode(saved(image, "PNG", icc_profile=P3))
    assert close(found[0, 0].tolist(), [219, 37, 49], 2)
    assert found[0, 1].tolist() == [255, 255, 255]


def test_a_grey_profile_is_applied_to_grey_alone() -> None:
    linear = icc_profile(b"GRAY", curve=1.0)
    assert close(first(saved(Image.new("L", (4, 4), 55), "PNG", icc_profile=linear)), [128] * 3, 2)
    assert first(saved(Image.new("RGB", (4, 4), (55, 5, 5)), "PNG", icc_profile=linear)) == [55, 5, 5]
    assert first(saved(Image.new("L", (4, 4), 55), "PNG", icc_profile=P3)) == [55] * 3


@pytest.mark.parametrize("profile", [b"no profile", P3[:200], b"\0" * 2000])
def test_a_broken_profile_does_not_cost_the_image(profile: bytes) -> None:
    assert first(saved(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", icc_profile=profile)) == [1, 2, 3]


def test_gamma_is_applied_before_sixteen_bits_are_lost() -> None:
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    assert first(png_pixel(8, 0, bytes([55]), gamma)) == [127] * 3  # 255 (55 / 255) ^ (1 / 2.2)
    assert first(png_pixel(8, 2, bytes([55, 0, 255]), gamma)) == [127, 0, 255]
    assert first(png_pixel(16, 0, struct.pack(">H", 100), gamma)) == [13] * 3


@pytest.mark.parametrize("chunk", [(b"gAMA", struct.pack(">I", 45455)), (b"gAMA", bytes(4)), (b"gAMA", b"\0")])
def test_the_usual_gamma_changes_nothing(chunk: tuple[bytes, bytes]) -> None:
    assert first(png_pixel(8, 0, bytes([55]), chunk)) == [55] * 3


def test_srgb_counts_more_than_gamma() -> None:
    chunks = [(b"gAMA", struct.pack(">I", 100_000)), (b"sRGB", b"\0")]
    assert first(png_pixel(8, 0, bytes([55]), *chunks)) == [55] * 3


def test_code_points_are_applied_and_high_dynamic_range_is_refused() -> None:
    red = bytes([200, 60, 60])
    assert close(first(png_pixel(8, 2, red, (b"cICP", bytes([12, 13, 0, 1])))), [217, 42, 52], 1)
    assert first(png_pixel(8, 2, red, (b"cICP", bytes([1, 13, 0, 1])))) == [200, 60, 60]
    for transfer, name in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(DecodeError, match=f"not supported here .high dynamic range, {name}"):
            decode(png_pixel(8, 2, red, (b"cICP", bytes([9, transfer, 0, 1]))))


def test_the_colour_box_of_avif_is_read() -> None:
    data = saved(Image.new("RGB", (16, 16), (200, 60, 60)), "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"nclx")
    p3 = data[: at + 4] + struct.pack(">HH", 12, 13) + data[at + 8 :]
    assert close(first(p3), [217, 42, 52], 3)


def test_adobe_rgb_of_a_camera_that_adds_no_profile() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    image = Image.new("RGB", (16, 16), (60, 200, 60))
    data = saved(image, "JPEG", quality=100, subsampling=0, exif=exif)
    assert close(first(data), [0, 201, 37], 3)  # outside of sRGB: red is cut off at zero


@pytest.mark.parametrize(
    ("bits", "kind", "values", "expected"),
    [
        (1, 1, bytes([0x40]), [255, 0]),
        (8, 1, bytes([0, 255]), [255, 0]),
        (16, 1, np.array([0, 65535], np.uint16), [255, 0]),
        (32, 3, np.array([0, 1], np.float32), [255, 0]),
    ],
)
def test_zero_is_white_where_a_tiff_says_so(bits: int, kind: int, values: Any, expected: list[int]) -> None:
    assert decode(tiff(values, (2, 1), bits, 0, kind=kind))[0, :, 0].tolist() == expected


def test_zero_is_black_where_a_tiff_says_nothing() -> None:
    assert decode(tiff(bytes([0, 200]), (2, 1), 8, None))[0, :, 0].tolist() == [0, 200]


@pytest.mark.parametrize(
    ("bits", "values", "expected"),
    [
        (8, np.array([-128, 127], np.int8), [0, 255]),
        (8, np.array([0, 100], np.int8), [0, 100]),
        (16, np.array([-100, 100], np.int16), [0, 255]),
        (32, np.array([-100, 100], np.int32), [0, 255]),
    ],
)
def test_signed_samples_are_no_large_ones(bits: int, values: np.ndarray, expected: list[int]) -> None:
    assert decode(tiff(values, (2, 1), bits, 1, kind=2))[0, :, 0].tolist() == expected


def test_unsigned_samples_of_32_bits_are_not_negative() -> None:
    values = np.array([0, 2**31, 2**32 - 1], np.uint32)
    assert decode(tiff(values, (3, 1), 32, 1))[0, :, 0].tolist() == [0, 128, 255]


def test_twelve_bits_reach_white() -> None:
    # Two samples in three bytes: 4095 and 2048.
    assert decode(tiff(bytes([0xFF, 0xF8, 0x00]), (2, 1), 12, 1))[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("samples", "count", "extra", "expected"),
    [
        (bytes([200, 128]), 2, 2, [227] * 3),
        (bytes([100, 128]), 2, 1, [227] * 3),  # multiplied with alpha already
        (bytes([200, 0]), 2, 0, [200] * 3),  # something, but not alpha
        (bytes([200, 0, 0, 128]), 4, 2, [227, 127, 127]),
        (bytes([100, 0, 0, 128]), 4, 1, [227, 127, 127]),
        (bytes([200, 0, 0, 0]), 4, 0, [200, 0, 0]),
    ],
)
def test_extra_samples_of_a_tiff(samples: bytes, count: int, extra: int, expected: list[int]) -> None:
    assert close(first(tiff(samples, (1, 1), 8, 2 if count > 2 else 1, count=count, extra=extra)), expected, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(bytes(12), (1, 1), 32, 2, count=3, kind=3), "3 floating-point samples of 32 bits, RGB"),
        (tiff(bytes(13), (1, 1), 8, 2, count=13), "13 samples of 8 bits"),
        (tiff(bytes(4), (1, 1), 16, 1, count=2, extra=2), "2 samples of 16 bits"),
        (tiff(bytes(8), (1, 1), 64, 1, kind=3), "1 floating-point sample of 64 bits"),
        (tiff(bytes(3), (1, 1), 8, 9, count=3), "ICCLab"),
        (tiff(bytes(3), (1, 1), 8, 2, count=3, more={259: [34712]}), "compression 34712"),
        (tiff(bytes(4), (1, 1), 8, 5, count=4, more={332: [2]}), "inks other than CMYK"),
        (tiff(bytes(3), (1, 1), 8, 6, count=3, more={530: [2, 2]}), "YCbCr with fewer colour samples"),
    ],
)
def test_what_is_merely_unsupported_is_not_called_damaged(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"not supported here .*{reason}") as raised:
        decode(data)
    assert "damaged" not in raised.value.message


def test_jpegs_of_rare_kinds_are_named() -> None:
    data = saved(Image.new("RGB", (8, 8)), "JPEG")
    at = data.index(b"\xff\xc0")
    for place, value, reason in ((1, 0xC7, "lossless or hierarchical"), (4, 12, "JPEG of 12 bits a sample")):
        changed = data[: at + place] + bytes([value]) + data[at + place + 1 :]
        with pytest.raises(DecodeError, match=f"not supported here .*{reason}"):
            decode(changed)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"tEXt", b"Comment\0" + b"x" * 2_000_000),
        (b"iCCP", b"icc\0\0" + zlib.compress(b"x" * 2_000_000)),
        (b"iCCP", b"icc\0\0not deflated"),
        (b"prVt", b"anything"),
    ],
)
def test_chunks_beside_the_picture_do_not_cost_it(chunk: tuple[bytes, bytes]) -> None:
    assert first(png_pixel(8, 0, bytes([55]), chunk)) == [55] * 3


def test_a_wrong_checksum_beside_the_picture_does_not_cost_it() -> None:
    gamma = (b"gAMA", struct.pack(">I", 100_000))
    data = png_pixel(8, 0, bytes([55]), (b"tEXt", b"key\0text"), gamma)
    for name, length in ((b"tEXt", 8), (b"gAMA", 4)):
        at = data.index(name) + 4 + length
        data = data[:at] + b"\0\0\0\0" + data[at + 4 :]
    assert first(data) == [55] * 3  # what it says of gamma is not believed


def test_a_profile_of_more_than_a_megabyte_is_used() -> None:
    profile = (b"iCCP", b"p\0\0" + zlib.compress(P3 + bytes(2**21)))
    assert close(first(png_pixel(8, 2, bytes([200, 60, 60]), profile)), [219, 37, 49], 2)


def test_a_tga_without_alpha_bits_is_not_transparent() -> None:
    data = saved(Image.new("RGBA", (2, 2), (10, 20, 30, 0)), "TGA")
    assert first(data) == [255, 255, 255]
    assert first(data[:17] + bytes([data[17] & 0xF0]) + data[18:]) == [10, 20, 30]


def test_the_end_of_a_file_without_its_last_chunk() -> None:
    header = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    data = png_chunks(header, (b"IDAT", zlib.compress(b"\0\x37")))
    assert first(data[:-12]) == [55] * 3


def test_code_points_count_more_than_a_profile() -> None:
    chunks = [(b"cICP", bytes([1, 13, 0, 1])), (b"iCCP", b"p\0\0" + zlib.compress(P3))]
    assert first(png_pixel(8, 2, bytes([200, 60, 60]), *chunks)) == [200, 60, 60]


def test_the_colour_box_of_jpeg_2000_is_read() -> None:
    data = saved(Image.new("RGB", (16, 16), (200, 60, 60)), "JPEG2000")
    at = data.index(b"colr")
    lab = data[: at + 7] + struct.pack(">I", 14) + data[at + 11 :]
    with pytest.raises(DecodeError, match=r"not supported here \(JPEG 2000 of colour space 14"):
        decode(lab)
    box = b"colr\2\0\0" + P3
    header = data.index(b"jp2h")
    length = int.from_bytes(data[header - 4 : header], "big") + len(box) + 4 - 15
    with_profile = (
        data[: header - 4]
        + struct.pack(">I", length)
        + data[header : at - 4]
        + struct.pack(">I", len(box) + 4)
        + box
        + data[at + 11 :]
    )
    assert close(first(with_profile), [219, 37, 49], 2)


def test_a_fault_in_the_list_of_further_pictures_does_not_cost_the_first() -> None:
    image = Image.new("RGB", (16, 16), (200, 60, 60))
    data = saved(image, "MPO", save_all=True, append_images=[image], quality=95)
    at = data.index(b"MPF\0") + 4
    for size in (4, 8, 30):
        assert close(first(data[:at] + b"\xff" * size + data[at + size :]), [200, 60, 60], 2)


@pytest.mark.parametrize("more", [{254: [1]}, {50706: [1]}])
def test_a_tiff_that_begins_with_a_preview_is_refused(more: dict[int, list[int]]) -> None:
    with pytest.raises(DecodeError, match="small preview"):
        decode(tiff(bytes(3), (1, 1), 8, 2, count=3, more=more))
    assert decode(tiff(bytes(3), (1, 1), 8, 2, count=3, more={254: [2]})).shape == (1, 1, 3)
