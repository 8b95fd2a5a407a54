"""The checks of `stores.py`: what a run, a lock and a refusal do in a bucket, beside the same on disk."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kill_in_bucket import DIFFCLEAN

import diffclean as dc
from diffclean.data.address import Address
from diffclean.data.encode import encode
from diffclean.data.lease import Lease
from diffclean.data.registry import open_source
from diffclean.data.store import Store
from diffclean.errors import DiffcleanError

BOX = "trial-box"
SIDE_PX = 32
HOW: dict[str, Any] = {"engine": "micro", "steps": 1, "processes": 1, "progress": False}


@dataclass(frozen=True)
class Trial:
    """A store to try.

    Attributes:
        scheme: of its addresses.
        environment: how it is found, with credentials.
        secret: the variable of the secret one.
        wrong: another secret, which is refused.
        endpoint: the variable of the address of the store.
    """

    scheme: str
    environment: Mapping[str, str]
    secret: str
    wrong: str
    endpoint: str

    def __truediv__(self, path: str) -> str:
        return f"{self.scheme}://{BOX}/{path}"

    @property
    def store(self) -> Store:
        """The bucket."""
        return Store(Address(self.scheme, BOX))


class Checks:
    """The checks of a store, in their order.

    Args:
        trial: the store.
        work: a folder.
        images: how many images.
    """

    def __init__(self, trial: Trial, work: Path, images: int) -> None:
        self.trial, self.work, self.count = trial, work, images

    def all(self) -> list[Callable[[], None]]:
        """Every check."""
        return [
            self.images_are_put_and_listed,
            self.objects_are_written_under_conditions,
            self.large_objects_are_sent_and_read_in_parts,
            self.a_folder_becomes_the_variations_of_a_run_on_disk,
            self.the_same_command_keeps_everything,
            self.tars_become_the_tars_of_a_run_on_disk,
            self.tables_become_the_tables_of_a_run_on_disk,
            self.data_sets_are_converted_there_and_back,
            self.red_team_data_are_those_made_on_disk,
            self.a_killed_run_goes_on_to_the_same_bytes,
            self.an_image_that_is_replaced_is_not_read_as_the_old_one,
            self.a_second_writer_is_refused,
            self.bad_credentials_are_said,
            self.a_missing_bucket_is_said,
            self.a_store_that_is_not_there_is_said,
            self.no_credential_was_written,
        ]

    def images_are_put_and_listed(self) -> None:
        """The data set of all checks, on disk and in the bucket."""
        rng = np.random.default_rng(0)
        for number in range(self.count):
            data = encode(rng.integers(0, 255, (SIDE_PX, SIDE_PX, 3), np.uint8))
            path = self.work / f"in/class {number % 4}/ä {number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.trial.store.put(path.relative_to(self.work).as_posix(), data)
        there, here = open_source(self.trial / "in").items(), open_source(self.work / "in").items()
        same([(item.key, item.label) for item in there], [(item.key, item.label) for item in here])

    def objects_are_written_under_conditions(self) -> None:
        """What locks and journals rest on."""
        store = self.trial.store
        first = store.create("conditions", b"1")
        assert first is not None
        same(store.create("conditions", b"2") is None, True)
        second = store.replace(first, b"3")
        assert second is not None
        same(store.replace(first, b"4") is None, True)
        same(store.get("conditions", None, second.tag), b"3")

    def large_objects_are_sent_and_read_in_parts(self) -> None:
        """Above the size of a part."""
        data = os.urandom(20 * 2**20)
        with tempfile.TemporaryFile() as file:
            file.write(data)
            self.trial.store.put("large", file)
        same(self.trial.store.get("large", len(data)) == data, True)

    def a_folder_becomes_the_variations_of_a_run_on_disk(self) -> None:
        """Every image."""
        dc.variate(self.work / "in", self.work / "out", **HOW)
        dc.variate(self.trial / "in", self.trial / "out", **HOW)
        same(self.there("out", ".png", ".parquet"), self.here("out", ".png", ".parquet"))

    def the_same_command_keeps_everything(self) -> None:
        """Nothing is made twice."""
        again = dc.variate(self.trial / "in", self.trial / "out", **HOW)
        same((again.made, again.kept), (0, self.count))

    def tars_become_the_tars_of_a_run_on_disk(self) -> None:
        """And the tars are read from the bucket."""
        self.packed("webdataset", ".tar")

    def tables_become_the_tables_of_a_run_on_disk(self) -> None:
        """And the Parquet files are read from the bucket."""
        self.packed("parquet", ".parquet")

    def packed(self, format: str, ending: str) -> None:
        """Variations in another format, and variations of those."""
        dc.variate(self.work / "in", self.work / format, to=format, **HOW)
        dc.variate(self.trial / "in", self.trial / format, to=format, **HOW)
        same(self.there(format, ending), self.here(format, ending))
        dc.variate(self.work / format, self.work / f"{format}-again", **HOW)
        dc.variate(self.trial / format, self.trial / f"{format}-again", **HOW)
        same(self.there(f"{format}-again", ending), self.here(f"{format}-again", ending))

    def data_sets_are_converted_there_and_back(self) -> None:
        """As they are."""
        dc.convert(self.work / "in", self.trial / "converted", to="webdataset", progress=False)
        dc.convert(self.trial / "converted", self.work / "back", to="folder", progress=False)
        same(sorted(self.here("back", ".png").values()), sorted(self.here("in", ".png").values()))

    def red_team_data_are_those_made_on_disk(self) -> None:
        """`poison` reads every image through the classes that training reads through."""
        for where, data in (("disk", self.work / "in"), ("bucket", self.trial / "in")):
            dc.poison(data, attack="badnets", target="class 1", out=self.work / f"poisoned-{where}", progress=False)
        same(self.here("poisoned-bucket", ".png"), self.here("poisoned-disk", ".png"))

    def a_killed_run_goes_on_to_the_same_bytes(self) -> None:
        """By SIGKILL, when a part of the images is there."""
        command = [sys.executable, "-c", DIFFCLEAN, "variate", self.trial / "in", "-o", self.trial / "killed"]
        how = ["--engine", "micro", "--steps", "1", "--batch", "2", "--processes", "1", "--quiet"]
        with subprocess.Popen([*command, *how]) as child:
            while child.poll() is None and len(self.there("killed", ".png")) < 3:
                time.sleep(0.05)
            child.kill()
        left = len(self.there("killed", ".png"))
        same((child.returncode, left < self.count), (-signal.SIGKILL, True))
        subprocess.run([*command, *how], check=True)
        dc.variate(self.work / "in", self.work / "killed", batch=2, **HOW)
        same(self.there("killed", ".png", ".parquet"), self.here("killed", ".png", ".parquet"))

    def an_image_that_is_replaced_is_not_read_as_the_old_one(self) -> None:
        """The tag of the list no longer fits."""
        self.trial.store.put("changing/a.png", (self.work / "in/class 0/ä 000.png").read_bytes())
        source = open_source(self.trial / "changing")
        (item,) = source.items()
        self.trial.store.put("changing/a.png", (self.work / "in/class 0/ä 004.png").read_bytes())
        refused(lambda: source.read(item), "was changed after it was listed")

    def a_second_writer_is_refused(self) -> None:
        """While the first renews its lock; then it is free."""
        store = self.trial.store
        with Lease(store, "lock", "the output"):
            refused(lambda: Lease(store, "lock", "the output").__enter__(), "is being written by process")
        with Lease(store, "lock", "the output") as held:
            held.check()

    def bad_credentials_are_said(self) -> None:
        """And not shown."""
        with changed({self.trial.secret: self.trial.wrong}):
            text = refused(lambda: open_source(self.trial / "in").items(), "credentials")
        same(self.trial.wrong in text, False)

    def a_missing_bucket_is_said(self) -> None:
        """For reading and for writing."""
        address = f"{self.trial.scheme}://no-such-box"
        refused(lambda: open_source(f"{address}/in"), f"There is no .* {address}")
        refused(lambda: dc.variate(self.work / "in", f"{address}/out", **HOW), f"There is no .* {address}")

    def a_store_that_is_not_there_is_said(self) -> None:
        """With the variable that names it."""
        with changed({self.trial.endpoint: "http://127.0.0.1:9"}):
            refused(lambda: open_source(self.trial / "in"), self.trial.endpoint)

    def no_credential_was_written(self) -> None:
        """To any object."""
        secret = self.trial.environment[self.trial.secret].encode()
        holding = [name for name, data in self.there("", "").items() if secret in data]
        same(holding == [], True)

    def there(self, folder: str, *endings: str) -> dict[str, bytes]:
        """Name -> content of the objects below a folder with these endings."""
        store = self.trial.store
        found = [each.name for chunk in store.below(folder) for each in chunk if each.name.endswith(endings)]
        return {name.removeprefix(f"{folder}/"): store.get(name) for name in found}

    def here(self, folder: str, *endings: str) -> dict[str, bytes]:
        """The same on disk."""
        found = [path for path in (self.work / folder).rglob("*") if path.is_file() and path.name.endswith(endings)]
        return {path.relative_to(self.work / folder).as_posix(): path.read_bytes() for path in found}


def same(found: Any, expected: Any) -> None:
    """Refuse a difference."""
    if found != expected or found in ({}, []):
        both = isinstance(found, dict) and isinstance(expected, dict)
        differing = sorted(set(found) ^ set(expected)) if both else ""
        raise AssertionError(f"there are differences: {str(differing)[:300]}")


def refused(work: Callable[[], Any], said: str) -> str:
    """Check that something is refused with these words, and return all that was said."""
    try:
        work()
    except Exception as error:
        text = f"{error} {error.hint if isinstance(error, DiffcleanError) else ''}"
        if not re.search(said, text):
            raise AssertionError(f"another message: {text}") from error
        return text
    raise AssertionError("it was not refused")


@contextmanager
def changed(variables: Mapping[str, str]) -> Iterator[None]:
    """The environment with some variables changed."""
    before = {name: os.environ[name] for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.update(before)
