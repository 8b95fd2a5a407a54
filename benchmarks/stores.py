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
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import google_xml
from record import results_folder, write_result
from stores_checks import BOX, SIDE_PX, Checks, Trial

from diffclean.data import lease

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every Azurite; both are in its documentation and no secret."""


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
            wrong = base64.b64encode(b"another key").decode()
            yield Trial("az", environment | {key: KEY}, key, wrong, endpoint), f"Azurite {version}"


@contextmanager
def google(command: str) -> Iterator[tuple[Trial, str]]:
    """A fake-gcs-server behind the translator, with a bucket, and its version."""
    found = subprocess.run(["strings", "-a", command], capture_output=True, text=True, check=False).stdout
    marked = re.search(r"^mod\tgithub\.com/fsouza/fake-gcs-server\t(\S+)", found, re.MULTILINE)
    version = marked[1] if marked else "of unknown version"
    with free_port() as port, tempfile.TemporaryDirectory() as folder:
        address = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        quiet = ["-scheme", "http", "-backend", "memory", "-log-level", "error"]
        with running([command, *address, *quiet], port, folder), google_xml.translated(port) as endpoint:
            google_xml.make_bucket(port, BOX)
            token = "GOOGLE_BEARER_TOKEN"
            environment = {"GOOGLE_BASE_URL": endpoint, token: google_xml.TOKEN}
            about = f"fake-gcs-server {version} behind google_xml.py"
            yield Trial("gs", environment, token, "another-token", "GOOGLE_BASE_URL"), about


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
