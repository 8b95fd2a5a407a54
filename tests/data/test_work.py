"""Work and memory in proportion: what is refused by its header, what is ended, and how many are decoded at once."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg_of_scans, saved, slow_file, tiff
from PIL import Image

from diffclean.data import spare
from diffclean.data.decode import DecodeError, Limits, decode, decode_for, decoded
from diffclean.data.in_flight import InFlight

RED = Image.new("RGB", (64, 48), (200, 60, 60))


@pytest.fixture
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_a_jpeg_of_too_many_scans_is_refused(image: Image.Image) -> None:
    with pytest.raises(DecodeError, match="more than 500 scans"):
        decode(jpeg_of_scans(image, 501))
    assert decode(jpeg_of_scans(image, 400)).shape == (64, 64, 3)


def test_what_lies_behind_a_jpeg_are_no_scans(image: Image.Image) -> None:
    # A phone puts a film behind its picture, in which these bytes occur by chance.
    data = saved(image, "JPEG", progressive=True)
    np.testing.assert_array_equal(decode(data + b"film \xff\xda" * 2000), decode(data))


def test_comments_of_a_jpeg_do_not_take_for_ever(image: Image.Image) -> None:
    data = saved(image, "JPEG")
    few, many = (data[:2] + b"\xff\xfe\0\2" * count + data[2:] for count in (700, 250_000))
    assert decode(few).shape == (64, 64, 3)
    with pytest.raises(DecodeError, match="comments"):
        decode(many)


@pytest.mark.parametrize("padding", [b"\xff", b"\xff\x01", b"\xff\xd0"])
def test_padding_of_a_jpeg_is_limited(image: Image.Image, padding: bytes) -> None:
    data = saved(image, "JPEG")
    assert decode(data[:2] + b"\xff" * 100 + data[2:]).shape == (64, 64, 3)
    with pytest.raises(DecodeError, match="padding"):
        decode(data[:2] + padding * 5000 + data[2:])


def test_segments_between_the_scans_of_a_jpeg_are_limited(image: Image.Image) -> None:
    data = jpeg_of_scans(image, 100)
    at = data.rindex(b"\xff\xda")
    with pytest.raises(DecodeError, match="more than 10000 segments"):
        decode(data[:at] + b"\xff\xfe\0\2" * 20_000 + data[at:])


def test_comments_of_a_ppm_are_limited() -> None:
    small = b"P6\n" + b"# a comment\n" * 100 + b"1 1\n# one more\n255\n\1\2\3"
    assert decode(small).tolist() == [[[1, 2, 3]]]
    with pytest.raises(DecodeError, match="comments of more than"):
        decode(b"P6\n" + b"#\n" * 500_000 + b"1 1 255\n\1\2\3")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P5 3 1 254\n\x00\x7f\xfe", [0, 128, 255]),
        (b"P5 2 1 1023\n\x02\x00\x03\xff", [128, 255]),
        (b"P2 3 1 # text\n4\n0 2\n#more\n4", [0, 128, 255]),
        (b"P1 4 1\n10 0 1", [0, 255, 255, 0]),
        (b"P4 3 1\n\x40", [255, 0, 255]),
        (b"P6 1 1 255\n\x07\x08\x09", [7]),
        (b"Pf\n1 2\n-1.0\n" + np.array([1.0, 0.0], "<f4").tobytes(), [0]),
    ],
)
def test_every_kind_of_netpbm(data: bytes, expected: list[int]) -> None:
    assert decode(data)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P5 3 1 254\n\x00", "truncated"),
        (b"P5 3 1 70000\n\x00", "greatest value of 70000"),
        (b"P2 2 1 9\n1 x", "other than numbers"),
        (b"P2 2 1 9\n1 10", "above the greatest"),
        (b"P2 1 1 9\n00000000000000000001", "too many digits"),
        (b"P6 9999999999 1 255\n", "limit"),
        (b"P6 1 -1 255\n", "header"),
    ],
)
def test_damaged_netpbm(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        decode(data)


def test_a_webp_canvas_is_refused_before_memory_is_taken_for_it() -> None:
    small = saved(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    at = small.index(b"VP8L") + 9
    huge = small[:at] + struct.pack("<I", 16383 | 16383 << 14) + small[at + 4 :]
    with pytest.raises(DecodeError, match="16384x16384 pixels; the limit is"):
        decode(huge)
    animated = saved(Image.new("RGB", (8, 8)), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    at = animated.index(b"VP8X") + 12
    with pytest.raises(DecodeError, match="16777216x8 pixels; the limit is"):
        decode(animated[:at] + b"\xff\xff\xff" + animated[at + 3 :])


def test_an_icon_is_as_large_as_the_picture_in_it() -> None:
    data = saved(Image.new("RGBA", (32, 32), "red"), "ICO")
    assert decode(data)[0, 0].tolist() == [255, 0, 0]
    at = data.rindex(b"IHDR") + 4
    with pytest.raises(DecodeError, match="60000x60000 pixels"):
        decode(data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :])


def test_what_takes_too_long_is_ended_and_the_next_one_is_decoded() -> None:
    with pytest.raises(DecodeError, match="took more than 1 s to decode"):
        decode(slow_file(), Limits(seconds=1))
    assert decode(saved(RED, "TIFF"))[0, 0].tolist() == [200, 60, 60]


def test_a_decoder_that_crashes_fails_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(RED, "TIFF")
    with spare._SPARES.one() as child:
        assert child is not None
        child.process.kill()
        with pytest.raises(DecodeError, match="killed"), ExitStack() as held:
            child.decoded(data, "TIFF", None, Limits(), held)
    assert decode(data)[0, 0].tolist() == [200, 60, 60]


def test_a_spare_process_ends_with_its_parent_whatever_it_is_at() -> None:
    child = spare._Spare()
    try:
        work = threading.Thread(target=_decoded_by, args=(child, slow_file()), daemon=True)
        work.start()
        while work.is_alive() and _processor_s(child.process.pid) < 1:  # until it is deep in the decoder
            work.join(0.05)
        assert work.is_alive()
        child._life.close()  # as the kernel does when the parent is killed
        assert child.process.wait(20) == -signal.SIGIO
    finally:
        child.end()


def _decoded_by(child: spare._Spare, data: bytes) -> None:
    with suppress(DecodeError), ExitStack() as held:
        child.decoded(data, "BMP", None, Limits(), held)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_what_decoders_say_goes_to_the_log(
    image: Image.Image, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(saved(image, "TIFF", compression="tiff_lzw"))
    data[40:44] = b"\xff\0\xff\x13"
    with caplog.at_level("DEBUG", "diffclean"), pytest.raises(DecodeError, match="damaged"):
        decode(bytes(data))
    assert "The decoder of TIFF files says:" in caplog.text
    assert capfd.readouterr().err == ""


def test_a_spare_process_gives_what_this_one_would(image: Image.Image) -> None:
    data = saved(image, "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(decode(data), np.asarray(image))
    pixels, size = decode_for(jpeg_of_scans(image.resize((640, 480)), 400), 32)
    assert size == (640, 480)
    assert 64 <= pixels.shape[0] < 480


def test_errors_come_back_from_a_spare_process() -> None:
    with pytest.raises(DecodeError, match="20x10 pixels; the limit is 199"):
        decode(saved(Image.new("RGB", (20, 10)), "TIFF"), Limits(pixels=199))
    with pytest.raises(DecodeError, match="not supported here"):
        decode(tiff(bytes(12), (1, 1), 32, 2, count=3, kind=3))


def test_threads_have_spare_processes_of_their_own(image: Image.Image) -> None:
    files = [saved(image.rotate(90 * turn), "TIFF") for turn in range(4)]
    wrong: list[int] = []

    def work(turn: int) -> None:
        for _ in range(20):
            if not np.array_equal(decode(files[turn]), np.asarray(image.rotate(90 * turn))):
                wrong.append(turn)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def run(gate: InFlight, sizes: list[int]) -> Iterator[int]:
    """How many bytes are held at each moment at which a thread comes in."""
    held, most, changing = 0, [], threading.Lock()

    def work(size: int) -> None:
        nonlocal held
        with gate.room(size):
            with changing:
                held += size
                most.append(held)
            time.sleep(0.001)
            with changing:
                held -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return iter(most)


def test_what_is_in_flight_is_bounded_and_nobody_waits_for_ever() -> None:
    assert max(run(InFlight(100), [30, 60, 100, 10, 50, 40] * 5)) <= 100


def test_what_is_larger_than_all_the_room_goes_alone() -> None:
    found = list(run(InFlight(100), [500, 10, 10, 500]))
    assert len(found) == 4
    assert all(one in (10, 20, 500) for one in found)


def test_processes_share_the_room(tmp_path: object) -> None:
    gate = InFlight()
    whole = gate.most
    gate.share(4)
    assert gate.most == whole // 4


def test_memory_counts_until_the_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffclean.data import decode as module

    gate = InFlight(10**6)
    monkeypatch.setattr(module, "IN_FLIGHT", gate)
    with decoded(saved(RED, "PNG")) as (pixels, size):
        assert gate.used >= pixels.nbytes
        assert size == (64, 48)
    assert gate.used == 0
    file = io.BytesIO()
    RED.save(file, "PNG")
    with pytest.raises(DecodeError), decoded(file.getvalue()[:-40]):
        pass
    assert gate.used == 0


def test_a_caller_s_error_in_the_block_is_the_caller_s() -> None:
    with pytest.raises(KeyError), decoded(saved(RED, "PNG")):
        raise KeyError("mine")


def with_pieces(image: Image.Image, tag: int, count: int) -> bytes:
    """A TIFF whose table of strips or tiles has so many entries; each is the first strip."""
    data = saved(image, "TIFF")
    (at,) = struct.unpack_from("<4xL", data)
    (tags,) = struct.unpack_from("<H", data, at)
    entries = [struct.unpack_from("<HHLL", data, at + 2 + 12 * number) for number in range(tags)]
    (strip,) = (entry[3] for entry in entries if entry[0] == 273)
    entries = sorted([*(e for e in entries if e[0] != tag), (tag, 4, count, len(data) + 2 + 12 * (tags + 1) + 4)])
    table = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    directory = struct.pack("<H", len(entries)) + table + bytes(4 + 12 * (tags + 1 - len(entries)))
    return data[:4] + struct.pack("<L", len(data)) + data[8:] + directory + struct.pack("<L", strip) * count


@pytest.mark.parametrize("tag", [273, 279, 324, 325])
def test_a_tiff_of_a_million_strips_is_refused(tag: int) -> None:
    with pytest.raises(DecodeError, match="TIFF of more than 65536 strips or tiles"):
        decode(with_pieces(RED, tag, 1_000_000))


def test_a_tiff_of_many_rows_has_a_strip_for_each(image: Image.Image) -> None:
    tall = image.resize((3, 20_000))
    data = saved(tall, "TIFF", compression="raw", tiffinfo={278: 1})
    np.testing.assert_array_equal(decode(data), np.asarray(tall))


def test_a_tiff_of_endless_tags_is_refused() -> None:
    big = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(20) * 1000
    with pytest.raises(DecodeError, match="TIFF of more than 4096 tags"):
        decode(big)
    with pytest.raises(DecodeError, match="TIFF of more than 4096 tags"):
        decode(b"MM\0*\0\0\0\x08" + struct.pack(">H", 65_535) + bytes(12) * 65_535)
    for cut in (b"II*\0\xff\xff\xff\xff", b"II+\0\x08\0\0\0" + b"\xff" * 8):
        with pytest.raises(DecodeError, match=r"truncated|damaged"):
            decode(cut + bytes(100))
