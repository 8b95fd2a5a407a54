"""Inside the image an error says what to type after `docker run`; elsewhere nothing of the kind is said."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from diffclean.cli import container
from diffclean.cli.main import main
from diffclean.data.atomic import write_error

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def inside(monkeypatch: Patch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DIFFCLEAN_CONTAINER", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def denied(path: Path) -> Exception:
    """What the core raises when a file cannot be written."""
    cause = PermissionError(errno.EACCES, "Permission denied", str(path))
    try:
        raise write_error(cause, path) from cause
    except Exception as error:
        return error


def test_it_names_the_owner_of_what_is_mounted(inside: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "getegid", lambda: 4243)
    found = inside.stat()
    said = container.hint(denied(inside / "data-variations/.diffclean.lock"))
    assert f"runs as user 4242:4243, but {inside} belongs to {found.st_uid}:{found.st_gid}" in said
    assert said.endswith(f"docker run --user {found.st_uid}:{found.st_gid} ...")


def test_to_the_owner_it_says_nothing(inside: Path) -> None:
    assert container.hint(denied(inside / "locked")) == ""


def test_outside_of_the_image_it_says_nothing(inside: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.delenv("DIFFCLEAN_CONTAINER")
    assert container.hint(denied(inside / "x")) == ""


def test_a_forgotten_volume(inside: Path, capsys: Capture) -> None:
    assert main(["variate", "./data"]) == 1
    said = f'No folder is mounted at {inside}. Mount yours: docker run -v "$PWD:/workspace" ...'
    assert said in capsys.readouterr().err


def test_with_something_mounted_it_is_another_mistake(inside: Path, capsys: Capture) -> None:
    (inside / "photos").mkdir()
    assert main(["variate", "./data"]) == 1
    said = capsys.readouterr().err
    assert "data: No such file or directory" in said
    assert "mounted" not in said
