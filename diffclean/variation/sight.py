"""What every machine that works on a run must see: the same source, the same output, and the same engine."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diffclean.data.item import Item, ItemError
from diffclean.data.registry import open_sink, open_source
from diffclean.data.sources import Description
from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError
from diffclean.variation.work import Job, Work

_HINT = (
    "Every node must see the same files under the same path, for example on a network disk that is mounted on all of "
    "them."
)


@dataclass(frozen=True)
class Sight:
    """What is compared.

    Attributes:
        token_name: the name of a file in the records of the output.
        token: its content, which no other file has.
        item: an image of the source; None if none of those that were tried can be read.
        digest: the sha256 of the image's bytes.
    """

    token_name: str
    token: bytes
    item: Item | None
    digest: str

    def check(self, source: Description, sink: Description, engine: Path, fingerprint: str) -> None:
        """Compare with what this machine sees.

        Raises:
            DiffcleanError: something is missing here or is not the same.
        """
        self._check_source(source)
        try:
            found = open_sink(sink).records.read(self.token_name)
        except DiffcleanError as error:
            raise _differs("The output", sink.where, error.message) from error
        if found != self.token:
            raise _differs("The output", sink.where, "a file that was just written there is missing")
        try:
            manifest = read_engine_manifest(engine)
        except (DiffcleanError, OSError) as error:
            raise _no_engine(engine, "is not there") from error
        if manifest.fingerprint != fingerprint:
            raise _no_engine(engine, "is another engine there")

    def _check_source(self, source: Description) -> None:
        try:
            images = open_source(source)
            digest = hashlib.sha256(images.read(self.item)).hexdigest() if self.item is not None else self.digest
        except DiffcleanError as error:
            raise _differs("The source", source.where, error.message) from error
        if digest != self.digest:
            raise _differs("The source", source.where, "an image has other bytes there")


def sight_of(work: Work, jobs: Iterable[Job]) -> Sight:
    """Write the token, and read the first image that can be read of the first few.

    Raises:
        WriteError: the token cannot be written.
    """
    sink = work.sink.describe()
    owner = sink.options.get("owner", "") if sink is not None else ""
    name, token = f".diffclean-seen{'-' * bool(owner)}{owner}", secrets.token_hex(16).encode()
    work.sink.records.write(name, token)
    for (item, _), _ in zip(jobs, range(16), strict=False):
        try:
            return Sight(name, token, item, hashlib.sha256(work.source.read(item)).hexdigest())
        except ItemError:
            continue
    return Sight(name, token, None, "")


def _differs(what: str, where: str, why: str) -> DiffcleanError:
    return DiffcleanError(f"{what} {where} is not what it is where the run was started ({why.rstrip('.')}).", _HINT)


def _no_engine(engine: Path, why: str) -> DiffcleanError:
    return DiffcleanError(f"The engine {engine} {why}.", f"{_HINT} DIFFCLEAN_CACHE names the folder of engines.")
