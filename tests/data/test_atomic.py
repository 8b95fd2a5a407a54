from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from diffclean.data import atomic
from diffclean.data.atomic import (
    NameWriteError,
    WriteError,
    Writer,
    check_writable,
    clean_temporaries,
    contained,
    make_folders,
    read_plain,
    temporary_folder,
    whole_file,
    write_whole,
)
from diffclean.data.journal import Journal, read_journal
from diffclean.data.keys import BadKeyError
from diffclean.data.manifest import Row
from diffclean.data.run_record import read_run
from diffclean.errors import DiffcleanError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.png"]


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_writer_makes_folders(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "out")
    path = writer.write("cat/sub/%FF_v00.png", b"image")
    writer.sync()
    writer.sync()
    assert path.read_bytes() == b"image"
    assert os.fsencode(path).endswith(b"/out/cat/sub/\xff_v00.png")


@pytest.mark.parametrize("key", ["../x.png", "/tmp/x.png", "a/../../x.png", "", "%2E%2E/x.png"])
def test_keys_that_lead_out(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadKeyError):
        Writer(tmp_path / "out").write(key, b"image")
    assert names(tmp_path) == []


def test_links_that_lead_out(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "cat").symlink_to("../elsewhere")
    (out / "gone").symlink_to("../elsewhere/not/yet")
    (out / "inside").symlink_to("dog")
    (out / "dog").mkdir()
    for key in ("cat/x.png", "cat/new/x.png", "gone/x.png"):
        with pytest.raises(WriteError, match="leads out"):
            Writer(out).write(key, b"image")
    assert names(elsewhere) == []
    Writer(out).write("inside/x.png", b"image")
    assert contained(out, "dog/x.png").read_bytes() == b"image"


def test_a_link_in_place_of_the_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (out / "a.png").symlink_to("../precious")
    Writer(out).write("a.png", b"image")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (out / "a.png").read_bytes() == b"image"
    assert not (out / "a.png").is_symlink()


def test_folders_deeper_than_the_stack_of_python(tmp_path: Path) -> None:
    deep = tmp_path / "/".join("d" * 1200)
    make_folders(deep)
    assert deep.is_dir()
    while deep != tmp_path:
        deep.rmdir()
        deep = deep.parent


def test_full_disk(tiny_disk: Path) -> None:
    write_whole(tiny_disk / "a.png", b"old")
    with pytest.raises(WriteError, match="disk is full") as raised:
        write_whole(tiny_disk / "a.png", bytes(200_000))
    assert "Free some space" in raised.value.hint
    assert names(tiny_disk) == ["a.png"]
    assert (tiny_disk / "a.png").read_bytes() == b"old"


def test_read_only_disk(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(WriteError, match="read-only"):
        Writer(tiny_disk).write("cat/a.png", b"image")


def test_file_size_limit(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.png", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(WriteError, match="larger than is allowed"):
            write_whole(tmp_path / "a.png", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_no_permission_and_too_long_names() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:  # root may write everywhere
            os.seteuid(65534)
        try:
            with pytest.raises(WriteError, match="permission denied"):
                write_whole(folder / "a.png", b"image")
        finally:
            os.seteuid(user)
        folder.chmod(0o755)
        with pytest.raises(WriteError, match="name is too long"):
            write_whole(folder / ("a" * 256), b"image")
        assert names(folder) == []


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "not/made/yet")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="no folder is in its way"):
        check_writable(tmp_path / "file/out")
    assert names(tmp_path) == ["file"]
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name)).chmod(0o555)
        user = os.geteuid()
        if user == 0:  # root may write everywhere
            os.seteuid(65534)
        try:
            with pytest.raises(WriteError, match="permission denied") as raised:
                check_writable(folder / "not/made/yet")
        finally:
            os.seteuid(user)
        assert isinstance(raised.value.__cause__, PermissionError)
        assert raised.value.__cause__.filename == name


def test_a_killed_writer_leaves_only_what_is_swept_away(tmp_path: Path) -> None:
    # Killed in the middle of the write, by the kernel: no chance to tidy up.
    script = (
        "import os, signal, sys; from pathlib import Path; from diffclean.data import atomic\n"
        "atomic.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.write_whole(Path(sys.argv[1]), b'half', owner=sys.argv[2])"
    )
    (tmp_path / "cat").mkdir()
    for owner in ("", "1-of-4", "2-of-4"):
        killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "cat/a.png"), owner])
        assert killed.returncode == -9
    write_whole(tmp_path / "cat/.diffclean-kept.part", b"not ours by its name")
    left = names(tmp_path / "cat")
    assert len(left) == 4
    assert all(name.startswith(".") and name.endswith(".part") for name in left)
    assert clean_temporaries(tmp_path, below=False) == 0
    assert clean_temporaries(tmp_path) == 3
    assert names(tmp_path / "cat") == [".diffclean-kept.part"]


def test_what_is_being_written_is_not_swept_away(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a.png") as file:
        file.write(b"whole")
        assert clean_temporaries(tmp_path) == 0
    with temporary_folder(tmp_path / "b") as folder:
        (folder / "image").write_bytes(b"whole")
        assert clean_temporaries(tmp_path) == 0
        folder.rename(tmp_path / "b")
    assert names(tmp_path) == ["a.png", "b"]
    assert (tmp_path / "b/image").read_bytes() == b"whole"


def test_a_killed_process_leaves_no_folder_for_good(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from diffclean.data.atomic import temporary_folder\n"
        "with temporary_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "b")]).returncode == -9
    assert len(names(tmp_path)) == 1
    with temporary_folder(tmp_path / "c") as folder:
        assert names(tmp_path) == [folder.name]
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_make_names_durable_is_warned_of_once(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:  # as CIFS and vboxsf answer; no such disk can be made in a test
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic._warn_of_sync.cache_clear()
    writer = Writer(tmp_path)
    for number in range(3):
        assert writer.write(f"{number}.png", b"image").read_bytes() == b"image"
        writer.sync()
    assert caplog.text.count("cannot make names durable") == 1


def test_a_name_that_cannot_be_written_is_told_apart_from_a_disk_that_cannot(tmp_path: Path) -> None:
    with pytest.raises(NameWriteError, match="too long"):
        write_whole(tmp_path / ("a" * 300), b"image")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    os.mkfifo(tmp_path / "journal.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "run.json")
    for name in ("run.json", "link"):
        with pytest.raises(DiffcleanError, match="not a plain file"):
            read_plain(tmp_path / name)
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_run(tmp_path)
    with pytest.raises(DiffcleanError, match="not a plain file"):
        Journal.open(tmp_path / "journal.jsonl")
    with pytest.raises(DiffcleanError, match="not a plain file"):
        read_journal(tmp_path / "journal.jsonl")


def test_a_folder_in_place_of_an_image_concerns_that_image_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(NameWriteError, match="a folder of that name is in its way"):
        write_whole(tmp_path / "a.png", b"image")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_make_contents_durable_is_warned_of_once(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    atomic._warn_of_sync.cache_clear()
    with Journal.open(tmp_path / "journal.jsonl") as journal:
        for number in range(3):
            write_whole(tmp_path / f"{number}.png", b"image")
            journal.append([Row(f"{number}.png")])
    assert (tmp_path / "2.png").read_bytes() == b"image"
    assert len(read_journal(tmp_path / "journal.jsonl")) == 3
    assert caplog.text.count("cannot make the content of files durable") == 1


def test_a_disk_that_is_full_when_it_is_asked_to_keep_a_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WriteError, match="the disk is full"):
        write_whole(tmp_path / "a.png", b"image")
    assert names(tmp_path) == []
