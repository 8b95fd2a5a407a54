from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffclean.data.lock import Lock
from diffclean.errors import DiffcleanError

HOLD = (
    "import sys, time; from pathlib import Path; from diffclean.data.lock import Lock\n"
    "with Lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_the_second_writer_is_told_who_the_first_is_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(DiffcleanError, match=f"process {holder.pid} on ") as raised, Lock(out):
                pass
            assert "`out`" in raised.value.hint
        finally:
            holder.send_signal(signal.SIGKILL)
    with Lock(out):
        pass


def test_a_lock_is_let_go_and_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Lock(tmp_path), pytest.raises(DiffcleanError, match=f"process {os.getpid()} "), Lock(tmp_path):
            pass
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


def test_shards_run_side_by_side_but_not_twice_and_not_beside_a_whole_run(tmp_path: Path) -> None:
    with Lock(tmp_path, "1-of-2"), Lock(tmp_path, "2-of-2"):
        with pytest.raises(DiffcleanError, match=f"process {os.getpid()}"), Lock(tmp_path, "2-of-2"):
            pass
        with pytest.raises(DiffcleanError, match="one or more shards"), Lock(tmp_path):
            pass
    with Lock(tmp_path), pytest.raises(DiffcleanError, match=f"process {os.getpid()}"), Lock(tmp_path, "1-of-2"):
        pass
    with Lock(tmp_path, "1-of-2"):  # nothing of the failed attempts is still held
        pass


def test_a_link_in_place_of_the_lock_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.diffclean.lock").symlink_to("../precious")
    with pytest.raises(DiffcleanError, match="not a plain file"), Lock(tmp_path / "out"):
        pass
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_lies_in_place_of_the_lock_file_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / ".diffclean.lock")
    with pytest.raises(DiffcleanError, match=r"\.diffclean\.lock' is not a plain file"), Lock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_nonsense_in_the_lock_file_does_not_hide_that_it_is_held(tmp_path: Path) -> None:
    with Lock(tmp_path):
        for text in ("[" * 4000, "7", "{}", "\0", ""):
            (tmp_path / ".diffclean.lock").write_text(text)
            with pytest.raises(DiffcleanError, match="is being written by another diffclean"), Lock(tmp_path):
                pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_named(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, mode: int) -> None:  # as some network disks answer
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(DiffcleanError, match=r"has no locks .*") as raised, Lock(tmp_path):
        pass
    assert "`out`" in raised.value.hint
