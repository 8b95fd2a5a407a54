"""The first look at a data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diffclean.errors import DiffcleanError
from diffclean.workflow.look_first import look


@pytest.fixture
def data(draw_photos: Callable[..., Path], tmp_path: Path) -> Path:
    draw_photos(tmp_path / "data", [f"cat/{number}.png" for number in range(4)])
    return draw_photos(tmp_path / "data", [f"dog/{number}.png" for number in range(3)], width=40, height=30)


def test_it_counts_classes_sizes_and_bytes(data: Path) -> None:
    found = look(data)
    assert dict(found.classes) == {"cat": 4, "dog": 3}
    assert dict(found.sizes) == {"20x16": 4, "40x30": 3}
    assert (found.images, found.usual_side, found.largest_side) == (7, 20, 40)
    assert found.bytes == sum(path.stat().st_size for path in data.rglob("*.png"))
    assert (found.copies, found.alike, found.unreadable) == (0, 0, {})


def test_copies_and_images_that_look_alike_are_told_apart(data: Path) -> None:
    shutil.copy(data / "cat/0.png", data / "cat/same.png")
    shutil.copy(data / "cat/0.png", data / "dog/same.png")
    Image.open(data / "cat/1.png").resize((40, 32)).save(data / "cat/larger.png")
    found = look(data)
    assert (found.copies, found.copies_across, found.alike) == (2, 1, 1)


def test_what_cannot_be_read_and_what_is_no_image_is_told(data: Path) -> None:
    (data / "cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (data / "cat/notes.txt").write_text("meow")
    found = look(data)
    assert list(found.unreadable) == ["cat/broken.png"]
    assert found.classes["cat"] == 4
    assert dict(found.passed_over) == {"txt": 1}


def test_the_digest_follows_names_and_bytes_and_nothing_is_read_again_in_vain(data: Path) -> None:
    found = look(data)
    moved = data.with_name("moved")
    shutil.copytree(data, moved)
    assert look(moved).digest == found.digest
    assert look(data, before=found) == found
    first = Image.open(data / "cat/0.png").copy()
    first.putpixel((0, 0), (1, 2, 3))
    first.save(data / "cat/0.png")
    assert look(data, before=found).digest != found.digest


def test_parts_of_a_data_set_are_not_taken_for_classes(draw_photos: Callable[..., Path], tmp_path: Path) -> None:
    data = draw_photos(tmp_path / "parts", [f"{part}/cat/0.png" for part in ("train", "val")])
    with pytest.raises(DiffcleanError, match="look like the parts of a data set"):
        look(data)
