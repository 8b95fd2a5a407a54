"""Divide one data set among several machines.

Each of n shards takes a part of the images, which a hash of their keys decides.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from diffclean.data.keys import key_bytes
from diffclean.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """Shard `index` (1 to `count`) of `count`; shard 1 of 1 is the whole data set."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(
                f"The shard {self.index}/{self.count} does not exist: the first number must be from 1 to the second.",
                "For example: 2/4, the second of four shards.",
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `2/4` as shard 2 of 4.

        Raises:
            UsageError: `text` is anything else.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found:
            raise UsageError(
                f"The shard {text!r} must be two numbers with a slash.", "For example: 2/4, the second of four shards."
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """The part of file names that identifies the shard: `2-of-4`, or `""` for the whole data set."""
        return f"{self.index}-of-{self.count}" if self.count > 1 else ""

    def takes(self, key: str) -> bool:
        """Whether `key` belongs to this shard.

        A hash decides and not the position, so adding or removing an image moves no other image to another shard.
        """
        digest = hashlib.blake2b(key_bytes(key), digest_size=8, person=b"diffclean-shard").digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1


def file_name(stem: str, shard: Shard | None, extension: str) -> str:
    """`manifest`, shard 2 of 4, `parquet` -> `manifest-2-of-4.parquet`; without a shard `manifest.parquet`."""
    suffix = f"-{shard.name}" if shard and shard.name else ""
    return f"{stem}{suffix}.{extension}"
