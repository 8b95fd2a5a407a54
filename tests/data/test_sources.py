from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from diffclean.data.folder import ImageFolder
from diffclean.data.item import ReadError
from diffclean.errors import DiffcleanError


def touch(root: Path, *names: str | bytes, data: bytes = b"x") -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def problems(root: Path) -> dict[str, str]:
    return {item.key: item.problem for item in ImageFolder(root).items() if item.problem}


def keys(root: Path) -> list[str]:
    return [item.key for item in ImageFolder(root).items()]


def test_nested_folder_with_labels(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.jpg", "cat/sub/2.PNG", "cat/1.jpeg", "top.webp", data=b"bytes")
    touch(tmp_path, "notes.txt", ".hidden.jpg", ".git/x.png", "cat/.thumb/1.jpg", "jpg", "run.json", "manifest.parquet")
    source = ImageFolder(tmp_path)
    found = [(item.key, item.label, item.problem) for item in source.items()]
    assert found == [
        ("cat/1.jpeg", "cat", None),
        ("cat/sub/2.PNG", "cat", None),
        ("dog/1.jpg", "dog", None),
        ("top.webp", "", None),
    ]
    assert source.class_to_idx == {"cat": 0, "dog": 1}
    assert source.read(source.items()[0]) == b"bytes"


def test_every_extension(tmp_path: Path) -> None:
    names = [
        f"a.{ext}"
        for ext in ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "JPG", "Tiff"]
    ]
    touch(tmp_path, *names, "a.svg", "a.pdf", "a.npy")
    assert keys(tmp_path) == sorted(names)


def test_order_is_that_of_raw_bytes(tmp_path: Path) -> None:
    # As text `%FF` would come first; `a-b/` sorts before `a/` by bytes though not by path parts.
    touch(tmp_path, b"\xff.jpg", b"a/1.jpg", b"a-b/1.jpg", "é.jpg", b"z\n.jpg", b"b c.jpg", b"...dots.. .jpg"[3:])
    expected = [b"a-b/1.jpg", b"a/1.jpg", b"b c.jpg", b"dots.. .jpg", b"z\n.jpg", "é.jpg".encode(), b"\xff.jpg"]
    source = ImageFolder(tmp_path)
    assert [os.fsencode(item.path.relative_to(os.path.realpath(tmp_path))) for item in source.items()] == expected
    assert source.items()[-1].key == "%FF.jpg"
    assert source.items()[4].key == "z%0A.jpg"
    assert all(source.read(item) == b"x" for item in source.items())


def test_links_inside_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "pool/1.jpg", ".store/blob", data=b"pool")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.jpg").symlink_to("../pool/1.jpg")
    (tmp_path / "cat/b.jpg").symlink_to("../.store/blob")
    (tmp_path / "alias").symlink_to("pool")
    source = ImageFolder(tmp_path)
    assert [(item.key, item.label) for item in source.items()] == [
        ("alias/1.jpg", "alias"),
        ("cat/a.jpg", "cat"),
        ("cat/b.jpg", "cat"),
        ("pool/1.jpg", "pool"),
    ]
    assert {source.read(item) for item in source.items()} == {b"pool"}


def test_a_source_that_is_a_link(tmp_path: Path) -> None:
    touch(tmp_path, "real/cat/1.jpg")
    (tmp_path / "link").symlink_to("real")
    assert keys(tmp_path / "link") == ["cat/1.jpg"]


def test_loops_end_and_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/to_b").symlink_to("../b")
    (tmp_path / "b/to_a").symlink_to("../a")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    found = problems(tmp_path)
    assert "loop" in found["a/up"]
    assert "loop" in found["self.jpg"]
    assert "followed once" in found["a/to_b/to_a"]
    assert {"a/1.jpg", "b/2.jpg", "a/to_b/2.jpg", "b/to_a/1.jpg"} <= set(keys(tmp_path)) - set(found)


def test_a_tree_of_links_does_not_explode(tmp_path: Path) -> None:
    for level in range(12):
        touch(tmp_path, f"d{level}/1.jpg")
        for name in ("x", "y"):
            (tmp_path / f"d{level}/{name}").symlink_to(f"../d{level + 1}")
    touch(tmp_path, "d12/1.jpg")
    assert len(keys(tmp_path)) < 200


def test_links_that_lead_out_are_never_read(tmp_path: Path) -> None:
    source_path = tmp_path / "source"
    touch(source_path, "ok.jpg")
    touch(tmp_path, "secret", "private/1.jpg", "source-2/1.jpg")
    (source_path / "leak.jpg").symlink_to("../secret")
    (source_path / "class").symlink_to("../private")
    (source_path / "sibling").symlink_to("../source-2")
    (source_path / "README").symlink_to("../secret")
    source = ImageFolder(source_path)
    assert keys(source_path) == ["class", "leak.jpg", "ok.jpg", "sibling"]
    for item in source.items():
        if item.key != "ok.jpg":
            assert "out of the source" in (item.problem or "")
            with pytest.raises(ReadError, match="out of the source"):
                source.read(item)


def test_what_is_no_plain_file_is_listed(tmp_path: Path) -> None:
    touch(tmp_path, "ok.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "gone_class").symlink_to("nowhere")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    found = problems(tmp_path)
    assert found.keys() == {"pipe.png", "broken.png", "gone_class"}
    assert "plain file" in found["pipe.png"]
    assert "broken link" in found["broken.png"]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "cat.png/1.jpg")
    assert keys(tmp_path) == ["cat.png/1.jpg"]


def test_byte_limit(tmp_path: Path) -> None:
    touch(tmp_path, "small.jpg", data=b"x" * 10)
    touch(tmp_path, "large.jpg", data=b"x" * 11)
    source = ImageFolder(tmp_path, byte_limit=10)
    large, small = source.items()
    assert large.problem == "file of 11 bytes; the limit is 10"
    assert source.read(small) == b"x" * 10
    small.path.write_bytes(b"x" * 11)
    with pytest.raises(ReadError, match="limit"):
        source.read(small)


def test_a_file_that_changed_since_it_was_listed(tmp_path: Path) -> None:
    touch(tmp_path, "in/gone.jpg", "in/pipe.jpg", "in/swapped.jpg", "secret")
    source = ImageFolder(tmp_path / "in")
    gone, pipe, swapped = source.items()
    for item in (gone, pipe, swapped):
        item.path.unlink()
    os.mkfifo(pipe.path)
    swapped.path.symlink_to(tmp_path / "secret")
    for item in (gone, pipe, swapped):
        with pytest.raises(ReadError):
            source.read(item)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything; be someone else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_folder_and_file_are_listed() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        touch(root, "closed/1.jpg", "open/1.jpg", "open/closed.jpg")
        (root / "closed").chmod(0)
        (root / "open/closed.jpg").chmod(0)
        with nobody():
            source = ImageFolder(root)
            closed, first, unreadable = source.items()
            assert closed.key == "closed"
            assert "cannot be listed (Permission denied)" in (closed.problem or "")
            assert source.read(first) == b"x"
            with pytest.raises(ReadError, match="Permission denied"):
                source.read(unreadable)
        (root / "closed").chmod(0o700)


def test_missing_file_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="No such file"):
        ImageFolder(tmp_path / "missing")
    touch(tmp_path, "file", "empty/a.txt", "empty/sub/b.csv")
    with pytest.raises(DiffcleanError, match="not a folder"):
        ImageFolder(tmp_path / "file")
    with pytest.raises(DiffcleanError, match="no images") as raised:
        ImageFolder(tmp_path / "empty").items()
    assert "2 other files" in raised.value.message
    assert "JPEG, PNG" in raised.value.hint


def test_deeper_than_the_stack_of_python(tmp_path: Path) -> None:
    folders = [tmp_path / "/".join("d" * depth) for depth in range(1, 1200)]
    for folder in folders:
        folder.mkdir()
    touch(folders[-1], "1.jpg")
    assert [item.label for item in ImageFolder(tmp_path).items()] == ["d"]
    (folders[-1] / "1.jpg").unlink()  # pytest's own cleaning up is recursive
    for folder in reversed(folders):
        folder.rmdir()
