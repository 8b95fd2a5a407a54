"""Decode mutated images of every format, and check for crashes, foreign errors, and more than two seconds or 300 MB.

python benchmarks/fuzz_images.py --count 20000 --seed 0 --pieces fuzz_images.pieces.json

Image number n is made from `--seed` and n alone, so each image can be made again: --only N writes it to a file. The
result of each image is kept in the file of pieces, so that a stopped run continues where it was. Only processor time
counts, because the machine may have other work.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import Pieces, commit, write_result

from diffclean.data import spare
from diffclean.data.decode import DecodeError, Limits, decode

SECONDS, MEGABYTES = 2.0, 300.0
_STUCK_S = 900
_WAIT = 400
"""Of wall clock for each second that a spare process may compute: a busy machine must not pass for a slow decoder."""
_PIECE = 250
"""Images that are kept together."""
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_OURS = ("it crashed the decoder", "it ended the decoder", "the process that decoded it was killed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pixel-limit", type=int, default=4_000_000, help="the pixel limit of the images that are decoded at all"
    )
    parser.add_argument("--only", type=int, help="write the image with this number to a file, and exit")
    parser.add_argument(
        "--pieces", type=Path, default=Path("fuzz_images.pieces.json"), help="the file of finished pieces"
    )
    options = parser.parse_args()
    files = seeds()
    if options.only is not None:
        path = Path(f"fuzz-{options.seed}-{options.only}.bin")
        path.write_bytes(mutated(files, options.seed, options.only)[1])
        print(path)
        return
    made = [*pieces_of(options)]
    found = [one for piece in made for one in piece["found"]]
    figures = summary(found) | {
        "images": options.count,
        "commits": sorted({piece["commit"] for piece in made}),
        "seed": options.seed,
        "pixel_limit": options.pixel_limit,
        "limits": {"seconds": SECONDS, "megabytes": MEGABYTES},
        "seconds": sum(piece["seconds"] for piece in made),
    }
    print({name: value for name, value in figures.items() if name != "by_format"}, flush=True)
    write_result("fuzz_images", figures, f"images made in the script, {len(files)} files in every format, mutated")
    sys.exit(bool(figures["bad"]))


def pieces_of(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What came of all images, piece by piece: as it was kept, or found now."""
    kept = Pieces(options.pieces, {"seed": options.seed, "pixel_limit": options.pixel_limit})
    for first in range(0, options.count, _PIECE):
        last = min(first + _PIECE, options.count)

        def found(first: int = first, last: int = last) -> dict[str, Any]:
            started = time.monotonic()
            images = list(measured(options, first, last))
            return {"found": images, "commit": commit(), "seconds": time.monotonic() - started}

        yield kept.get(f"{first}-{last}", found, lambda piece: summary(piece["found"])["bad"])


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    """As Pillow writes it."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """Well-formed files of every format that is taken, in the kinds that decoders treat differently."""
    y, x = np.mgrid[0:37, 0:53]
    image = Image.fromarray(np.stack([y * 6, x * 4, (x * y) % 256], axis=2).astype(np.uint8))
    grey16 = Image.fromarray((y * 1700 + x * 3).astype(np.uint16))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray((x * 4).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {f"{f} rgb": saved(image, f) for f in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")}
    files |= {f"{f} rgb": saved(image, f) for f in ("JPEG2000", "ICO", "PCX", "QOI", "SGI", "TGA", "DIB")}
    files |= {f"{f} alpha": saved(alpha, f) for f in ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "ICO", "QOI", "TGA")}
    files |= {f"{f} grey": saved(image.convert("L"), f) for f in ("JPEG", "PNG", "BMP", "TIFF", "JPEG2000", "PCX")}
    files |= {f"{f} 16 bits": saved(grey16, f) for f in ("PNG", "TIFF", "PPM", "JPEG2000")}
    files |= {f"{f} palette": saved(image.convert("P"), f) for f in ("PNG", "BMP", "TIFF", "PCX", "TGA")}
    files |= {f"{f} bits": saved(image.convert("1"), f) for f in ("PNG", "TIFF", "PPM", "BMP")}
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "tiff_lzma"):
        files[f"TIFF {compression}"] = saved(image, "TIFF", compression=compression)
    files["TIFF group4"] = saved(image.convert("1"), "TIFF", compression="group4")
    files["TIFF float"] = saved(Image.fromarray(x.astype(np.float32)), "TIFF")
    files["TIFF ycbcr"] = saved(image.convert("YCbCr"), "TIFF")
    files["JPEG progressive"] = saved(image, "JPEG", progressive=True, exif=exif, icc_profile=_srgb())
    files["JPEG cmyk"] = saved(image.convert("CMYK"), "JPEG", icc_profile=b"\0" * 200)
    files["JPEG mpo"] = saved(image, "MPO", save_all=True, append_images=[image])
    files["WEBP lossless"] = saved(image, "WEBP", lossless=True, exif=exif, icc_profile=_srgb())
    for format in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        files[f"{format} frames"] = saved(image, format, save_all=True, append_images=[image.rotate(90)] * 3)
    files["TGA run lengths"] = saved(image, "TGA", compression="tga_rle")
    files["PPM text"] = b"P3 # text\n4 3\n255\n" + b" ".join(b"%d" % n for n in range(36))
    files["PPM float"] = b"Pf\n3 2\n-1.0\n" + np.linspace(0, 1, 6, dtype="<f4").tobytes()
    files["BMP run lengths"] = _run_length_bmp()
    files["PNG colours"] = _png_of_many_chunks()
    return files


def _srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _run_length_bmp() -> bytes:
    rows = b"".join(b"\5\1\3\2\0\0" for _ in range(8)) + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + bytes(range(256)) * 4 + rows


def _png_of_many_chunks() -> bytes:
    header = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"gAMA", struct.pack(">I", 100_000)), (b"tRNS", bytes(6)), (b"tEXt", b"a\0b")]
    chunks += [(b"iCCP", b"p\0\0" + zlib.compress(_srgb())), (b"IDAT", zlib.compress((b"\0" + bytes(range(9))) * 2))]
    packed = (
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def mutated(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Image `number`: its kind, and its bytes."""
    chance = random.Random(f"{seed}/{number}")
    names = sorted(files)
    name = names[number % len(names)]
    data = files[name]
    for _ in range(chance.randint(1, 8)):
        data = chance.choice(MUTATIONS)(data, files[chance.choice(names)], chance)
    # PNG's checksums would hide most of what was done to it from all code behind them.
    return name, _with_checksums(data) if name.startswith("PNG") and chance.random() < 0.8 else data


def _set(data: bytes, other: bytes, chance: random.Random) -> bytes:
    # The beginning of a file decides most.
    at = int(len(data) * chance.random() ** chance.choice((1, 3)))
    return data[:at] + chance.randbytes(chance.randint(1, 4)) + data[at + chance.randint(0, 4) :]


def _number(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at, width = int(len(data) * chance.random() ** 3), chance.choice((1, 2, 4))
    value = chance.choice(_NUMBERS) & (256**width - 1)
    return data[:at] + value.to_bytes(width, chance.choice(("big", "little"))) + data[at + width :]


def _cut(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: int(len(data) * chance.random() ** 0.5)]


def _repeat(data: bytes, other: bytes, chance: random.Random) -> bytes:
    start = int(len(data) * chance.random())
    end = min(len(data), start + chance.choice((4, 16, 64, 1024)))
    return data[:end] + data[start:end] * chance.choice((1, 8, 200)) + data[end:]


def _splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    return data[: int(len(data) * chance.random())] + other[int(len(other) * chance.random()) :]


MUTATIONS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    _set,
    _set,
    _number,
    _number,
    _cut,
    _repeat,
    _splice,
)


def _with_checksums(data: bytes) -> bytes:
    at, out = 8, data[:8]
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]


def measured(options: argparse.Namespace, first: int, last: int) -> Iterator[dict[str, Any]]:
    """What came of each image, in processes that may crash or hang."""
    context = multiprocessing.get_context("spawn")
    number = first
    while number < last:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(theirs, options, number, last), daemon=True)
        worker.start()
        theirs.close()
        try:
            while number < last:
                if not ours.poll(_STUCK_S):
                    raise EOFError
                yield ours.recv()
                number += 1
        except EOFError:
            worker.join(1)
            how = "hung" if worker.is_alive() else f"ended with {worker.exitcode}"
            yield {"number": number, "kind": "?", "outcome": "crash", "reason": how, "seconds": 0.0, "megabytes": 0.0}
            number += 1
        finally:
            worker.kill()
            worker.join()


def _work(told: Connection, options: argparse.Namespace, first: int, last: int) -> None:
    files = seeds()
    spare._WAIT = _WAIT
    limits = Limits(pixels=options.pixel_limit, seconds=int(SECONDS))
    for data in files.values():  # whatever is loaded at the first use is not the first image's
        decode(data, limits)
    for number in range(first, last):
        kind, data = mutated(files, options.seed, number)
        told.send({"number": number, "kind": kind} | _one(data, limits))


def _one(data: bytes, limits: Limits) -> dict[str, Any]:
    pids = ["self", *(str(child.process.pid) for child in spare._SPARES._idle)]
    before = {pid: _peak(pid, reset=True) for pid in pids}
    used = sum(map(_cpu, pids))
    outcome, reason = "decoded", ""
    try:
        decode(data, limits)
    except DecodeError as error:
        outcome, reason = "refused", error.message
        if reason.startswith(_OURS):
            outcome = "crash of the spare process"
    except BaseException as error:
        outcome, reason = "escape", f"{type(error).__name__}: {error}"
    pids = [pid for pid in pids if pid == "self" or Path(f"/proc/{pid}/statm").exists()]
    seconds = sum(map(_cpu, pids)) - used if len(pids) == len(before) else SECONDS
    megabytes = max(_peak(pid) - before[pid] for pid in pids) / 2**20
    return {"outcome": outcome, "reason": reason, "seconds": seconds, "megabytes": megabytes}


def _peak(pid: str, reset: bool = False) -> int:
    """The most bytes that a process has held since it was reset."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def _cpu(pid: str) -> float:
    if pid == "self":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What is reported: outcomes by format, the slowest, the largest, and all that should not have been."""
    outcomes: dict[str, Counter[str]] = {}
    for one in found:
        outcomes.setdefault(one["kind"].split()[0], Counter())[one["outcome"]] += 1
    bad = [
        one
        for one in found
        if one["outcome"] not in ("decoded", "refused") or one["seconds"] > SECONDS or one["megabytes"] > MEGABYTES
    ]
    most = {name: max(found, key=lambda one: one[name], default={}) for name in ("seconds", "megabytes")}
    return {
        "bad": bad,
        "by_format": {kind: dict(counts) for kind, counts in sorted(outcomes.items())},
        "slowest": most["seconds"],
        "largest": most["megabytes"],
    }


if __name__ == "__main__":
    main()
