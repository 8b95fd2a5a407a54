from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bucket_server import Bucket
from data_sets import files_below
from PIL import Image

from diffclean.data.decode import decode
from diffclean.data.fit import Fit, to_square
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.pretraining.pack import packed_images

KEYS = [f"{label}/{index:02d}.png" for label in ("a", "b", "c") for index in range(10)]


@pytest.fixture
def source(tmp_path: Path, draw_photos: Callable[..., Path]) -> Path:
    return draw_photos(tmp_path / "source", KEYS)


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_every_image_once_as_a_centre_square(source: Path, tmp_path: Path) -> None:
    images, failed = packed_images(source, tmp_path / "run", 16)
    assert (images.shape, images.dtype, failed) == ((30, 16, 16, 3), np.uint8, 0)
    assert as_set(images) == {to_square(decode((source / key).read_bytes()), 16, Fit.CROP)[0].tobytes() for key in KEYS}
    assert isinstance(images, np.memmap)


def test_images_in_a_bucket_are_packed_as_those_on_disk(source: Path, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put({f"source/{key}": data for key, data in files_below(source).items()})
    there, failed = packed_images(Path(bucket / "source"), tmp_path / "there", 16)
    here, _ = packed_images(source, tmp_path / "here", 16)
    assert (failed, there.tobytes()) == (0, here.tobytes())


def test_classes_are_shuffled_and_the_order_is_the_same_everywhere(
    source: Path, tmp_path: Path, draw_photos: Callable[..., Path]
) -> None:
    images, _ = packed_images(source, tmp_path / "run", 16, workers=1)
    other = draw_photos(tmp_path / "other", reversed(KEYS))
    again, _ = packed_images(other, tmp_path / "again", 16, workers=4)
    assert (again == images).all()
    in_order = [to_square(decode((source / key).read_bytes()), 16, Fit.CROP)[0].tobytes() for key in KEYS]
    places = [in_order.index(image.tobytes()) for image in images]
    assert {place // 10 for place in places[-10:]} == {0, 1, 2}


def test_unreadable_files_are_counted_and_named(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (source / "a/broken.png").write_text("no image")
    (source / "b/empty.jpg").touch()
    images, failed = packed_images(source, tmp_path / "run", 16)
    assert (len(images), failed) == (30, 2)
    assert "a/broken.png: not an image" in caplog.text
    assert "b/empty.jpg: empty file" in caplog.text
    assert images.min(axis=(1, 2, 3)).max() > 0 or images.max(axis=(1, 2, 3)).min() > 0  # no black rest at the end
    again, failed = packed_images(source, tmp_path / "run", 16)
    assert failed == 2  # from the file, too
    assert (again == images).all()


def test_the_second_time_nothing_is_decoded(source: Path, tmp_path: Path) -> None:
    first, _ = packed_images(source, tmp_path / "run", 16)
    (packed,) = (tmp_path / "run").iterdir()
    before = packed.stat().st_mtime_ns
    Image.init()
    second, _ = packed_images(source, tmp_path / "run", 16)
    assert (second == first).all()
    assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "run").iterdir()] == [(packed, before)]


def test_another_size_or_another_image_is_decoded(source: Path, tmp_path: Path) -> None:
    first, _ = packed_images(source, tmp_path / "run", 16)
    assert packed_images(source, tmp_path / "run", 8)[0].shape == (30, 8, 8, 3)
    (source / "a/00.png").rename(source / "a/new.png")
    assert as_set(packed_images(source, tmp_path / "run", 16)[0]) == as_set(first)
    Image.new("RGB", (20, 16), (1, 2, 3)).save(source / "a/new.png")  # mended under the same name
    os.utime(source / "a/new.png", ns=(0, 1))
    again, _ = packed_images(source, tmp_path / "run", 16)
    assert len(as_set(again) & as_set(first)) == 29
    assert (again == (1, 2, 3)).all(axis=(1, 2, 3)).sum() == 1


def test_stopped_or_failed_leaves_nothing(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        packed_images(source, tmp_path / "run", 16, stop=stop)
    for key in KEYS:
        (source / key).write_text("no image")
    with pytest.raises(DiffcleanError, match="None of the 30 images"):
        packed_images(source, tmp_path / "run", 16)
    assert list((tmp_path / "run").iterdir()) == []


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError):
        packed_images(tmp_path / "nowhere", tmp_path / "run", 16)
