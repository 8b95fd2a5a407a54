from __future__ import annotations

from pathlib import Path

import pytest

from diffclean.data.apart import check_separate, path_from
from diffclean.errors import DiffcleanError


def test_source_and_output_apart(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    check_separate(source, tmp_path / "data-variations")
    check_separate(tmp_path / "link", tmp_path / "link-variations")
    for inside in (
        source / "out",
        source / "cat",
        source / "cat/not/yet",
        tmp_path / "link/out",
        tmp_path / "x/../data/y",
    ):
        with pytest.raises(DiffcleanError, match="inside the source"):
            check_separate(source, inside)
    with pytest.raises(DiffcleanError, match="inside the output"):
        check_separate(source, tmp_path)
    with pytest.raises(DiffcleanError, match="inside the output"):
        check_separate(tmp_path / "link/cat", source)
    for same in (source, tmp_path / "link", source / ".", source / "cat/.."):
        with pytest.raises(DiffcleanError, match="the source itself"):
            check_separate(source, same)


def test_the_way_from_one_place_to_another() -> None:
    assert path_from("/a/out", "/a/data") == "../data"
    assert path_from("s3://bucket/out", "/a/data") == ""
