from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffclean.data.json_file import read_json
from diffclean.errors import DiffcleanError


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 101 + "]" * 101, "nested too deeply"),  # Python reads it, and could fail to copy or write it
        ('{"a": Infinity}', "Infinity"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "too large"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ('{"a": ' + "9" * 10_000 + "}", "damaged"),
        ("{", "damaged"),
        ("", "damaged"),
    ],
)
def test_what_is_refused_and_why(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DiffcleanError, match=why):
        read_json(tmp_path / "x.json")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DiffcleanError, match="UTF-8"):
        read_json(tmp_path / "x.json")


def test_what_is_fine(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('\ufeff{"a": "\\ud83d\\ude00 é", "b": 1000000000000000000000000000000}', "utf-8")
    assert read_json(tmp_path / "x.json") == {"a": "😀 é", "b": 10**30}
    (tmp_path / "x.json").write_text("[" * 100 + "]" * 100)
    assert read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"a": -Infinity}')
    assert read_json(tmp_path / "x.json", infinities=True)["a"] < 0


def test_a_large_file_and_a_pipe_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(" " * 2000)
    with pytest.raises(DiffcleanError, match="larger than"):
        read_json(tmp_path / "x.json", limit_bytes=1000)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_json(tmp_path / "pipe.json")


def test_a_file_name_that_is_no_text_is_read_where_file_names_are_expected(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('"caf\\udce9"')
    assert os.fsencode(read_json(tmp_path / "x.json", file_names=True)) == b"caf\xe9"
    with pytest.raises(DiffcleanError, match="surrogate"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('"caf\\ud800"')
    with pytest.raises(DiffcleanError, match="surrogate"):
        read_json(tmp_path / "x.json", file_names=True)
