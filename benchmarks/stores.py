"""Try `az://` and `gs://` against servers on this machine, and compare every byte with runs on disk.

    npm install azurite
    python benchmarks/stores.py --azurite node_modules/.bin/azurite-blob --gcs fake-gcs-server

Azurite is Microsoft's own stand-in for Azure. A fake-gcs-server stands in for Google; what it lacks of the interface
that writes to buckets, `google_xml.py` translates. Give one of them or both; those that were not given keep their part
of the result file. Every server keeps what it holds in memory and is stopped at the end.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import google_xml
import numpy as np
from kill_in_bucket import VARIATE
from record import results_folder, write_result

import diffclean as dc
from diffclean.data import lease
from diffclean.data.address import Address
from diffclean.data.encode import encode
from diffclean.data.lease import Lease
from diffclean.data.registry import open_source
from diffclean.data.store import Store
from diffclean.errors import DiffcleanError

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every Azurite; both are in its documentation and no secret."""
BOX = "trial-box"
SIDE_PX = 32
HOW: dict[str, Any] = {"engine": "micro", "steps": 1, "processes": 1, "progress": False}


@dataclass(frozen=True)
class Trial:
    """A store to try.

    Attributes:
        scheme: of its addresses.
        environment: how it is found, with credentials.
        wrong: what is wrong in the credentials of `environment`, for a refusal.
        endpoint: the variable of the address of the store.
    """

    scheme: str
    environment: Mapping[str, str]
    wrong: Mapping[str, str]
    endpoint: str

    def __truediv__(self, path: str) -> str:
        return f"{self.scheme}://{BOX}/{path}"

    @property
    def store(self) -> Store:
        """The bucket."""
        return Store(Address(self.scheme, BOX))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--azurite", help="the command of Azurite's blob service")
    parser.add_argument("--gcs", help="the command of a fake-gcs-server")
    parser.add_argument("--images", type=int, default=20)
    options = parser.parse_args()
    lease.LIFE_S = 3.0
    logging.disable(logging.WARNING)
    kept = results_folder() / "stores.json"
    figures = json.loads(kept.read_text())["figures"] if kept.exists() else {}
    for name, command, server in (("azurite", options.azurite, azurite), ("fake_gcs_server", options.gcs, google)):
        if command:
            figures[name] = tried(command, server, options.images)
            print(name, json.dumps(figures[name], indent=1), flush=True)
    data = f"{options.images} random images of {SIDE_PX} px in 4 classes"
    write_result("stores", figures, data)
    sys.exit(not all(each["passed"] == each["checks"] for each in figures.values()))


def tried(command: str, server: Callable[[str], Any], images: int) -> dict[str, Any]:
    """What of the checks passed against a server."""
    with tempfile.TemporaryDirectory() as name, server(command) as (trial, version):
        os.environ.update(trial.environment)
        checks = Checks(trial, Path(name), images)
        passed, failed = [], {}
        for check in checks.all():
            title = check.__name__.replace("_", " ")
            try:
                check()
                passed.append(title)
            except Exception as error:
                failed[title] = f"{type(error).__name__}: {error}"
    return {"server": version, "checks": len(passed) + len(failed), "passed": len(passed), "names": passed} | (
        {"failed": failed} if failed else {}
    )


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
        assert first is not None and store.create("conditions", b"2") is None
        second = store.replace(first, b"3")
        assert second is not None and store.replace(first, b"4") is None
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
        command = [sys.executable, "-c", VARIATE, "variate", self.trial / "in", "-o", self.trial / "killed"]
        how = ["--engine", "micro", "--steps", "1", "--batch", "2", "--processes", "1", "--quiet"]
        with subprocess.Popen([*command, *how]) as child:
            while child.poll() is None and len(self.there("killed", ".png")) < 3:
                time.sleep(0.05)
            child.kill()
        left = len(self.there("killed", ".png"))
        assert child.returncode == -9 and left < self.count, f"it ended with {child.returncode} and {left} images"
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
        with changed(self.trial.wrong):
            refused(lambda: open_source(self.trial / "in").items(), "credentials")

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
        secrets = [value.encode() for name, value in self.trial.environment.items() if "KEY" in name or "TOKEN" in name]
        objects = self.there("", "")
        assert secrets and objects and not [name for name, data in objects.items() for each in secrets if each in data]

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
    if found != expected or not found:
        both = isinstance(found, dict) and isinstance(expected, dict)
        differing = sorted(set(found) ^ set(expected)) if both else ""
        raise AssertionError(f"there are differences: {str(differing)[:300]}")


def refused(work: Callable[[], Any], said: str) -> None:
    """Check that something is refused with these words."""
    import re

    try:
        work()
    except Exception as error:
        text = f"{error} {error.hint if isinstance(error, DiffcleanError) else ''}"
        assert re.search(said, text), f"another message: {text}"
        assert KEY not in text and google_xml.TOKEN not in text
        return
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


@contextmanager
def azurite(command: str) -> Iterator[tuple[Trial, str]]:
    """An Azurite with a container, and its version."""
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    with free_port() as port, tempfile.TemporaryDirectory() as folder:
        quiet = ["--silent", "--disableTelemetry", "--inMemoryPersistence"]
        with running([command, "--blobHost", "127.0.0.1", "--blobPort", str(port), *quiet], port, folder):
            make_container(port)
            endpoint = "AZURE_STORAGE_ENDPOINT"
            environment = {endpoint: f"http://127.0.0.1:{port}/{ACCOUNT}", "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT}
            key = "AZURE_STORAGE_ACCOUNT_KEY"
            wrong = {key: base64.b64encode(b"another key").decode()}
            yield Trial("az", environment | {key: KEY}, wrong, endpoint), f"Azurite {version}"


@contextmanager
def google(command: str) -> Iterator[tuple[Trial, str]]:
    """A fake-gcs-server behind the translator, with a bucket, and its version."""
    found = subprocess.run(["strings", "-a", command], capture_output=True, text=True, check=False).stdout
    marked = [line.split() for line in found.splitlines() if line.startswith("mod\tgithub.com/fsouza/fake-gcs-server\t")]
    version = marked[0][2] if marked else "of unknown version"
    with free_port() as port, tempfile.TemporaryDirectory() as folder:
        address = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        quiet = ["-scheme", "http", "-backend", "memory", "-log-level", "error"]
        with running([command, *address, *quiet], port, folder), google_xml.translated(port) as endpoint:
            google_xml.make_bucket(port, BOX)
            token = "GOOGLE_BEARER_TOKEN"
            environment = {"GOOGLE_BASE_URL": endpoint, token: google_xml.TOKEN}
            about = f"fake-gcs-server {version} behind google_xml.py"
            yield Trial("gs", environment, {token: "another-token"}, "GOOGLE_BASE_URL"), about


@contextmanager
def running(command: list[str], port: int, folder: str) -> Iterator[None]:
    """A server, from when it listens."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not listen") from None
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    yield port


def make_container(port: int) -> None:
    """Make a container, with a request that is signed by hand."""
    date, version, path = formatdate(usegmt=True), "2021-08-06", f"/{ACCOUNT}/{BOX}"
    signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container"
    mark = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
    headers = {"x-ms-date": date, "x-ms-version": version, "Content-Length": "0"}
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(mark).decode()}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    if (status := connection.getresponse().status) != 201:
        raise SystemExit(f"The container cannot be made ({status}).")
    connection.close()


if __name__ == "__main__":
    main()
