"""Small disks that can be filled: mounted by root, and skipped where that is not allowed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"


@contextmanager
def mounted(size: str) -> Iterator[Path]:
    """A disk of that size, such as "64k", for as long as the block lasts."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name], capture_output=True)
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def fill(disk: Path) -> None:
    """Write a file until there is no room for another byte; removing `FILLER` makes room again."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
