"""One data set, several machines: shard i of n takes the images that its number falls to."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from diffclean.data.keys import key_bytes
from diffclean.errors import UsageError


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """Shard `index` (1 to `count`) of `count`; 1 of 1 is the whole data set."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise UsageError(f"Shard {self.index}/{self.count}: the first number goes from 1 to the second.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4` -> shard 2 of 4.

        Raises:
            UsageError: anything else.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found:
            raise UsageError(f"The shard {text!r} should be like 2/4: the second of four.")
        return cls(int(found[1]), int(found[2]))

    @property
    def name(self) -> str:
        """`2-of-4`, or `""` for the whole data set: goes into file names."""
        return f"{self.index}-of-{self.count}" if self.count > 1 else ""

    def takes(self, key: str) -> bool:
        """Whether this shard does `key`. By hash, not by position: an image that comes or goes moves no other."""
        digest = hashlib.blake2b(key_bytes(key), digest_size=8, person=b"diffclean-shard").digest()
        return int.from_bytes(digest, "big") % self.count == self.index - 1


def file_name(stem: str, shard: Shard | None, extension: str) -> str:
    """`manifest`, shard 2 of 4, `parquet` -> `manifest-2-of-4.parquet`; without a shard `manifest.parquet`."""
    suffix = f"-{shard.name}" if shard and shard.name else ""
    return f"{stem}{suffix}.{extension}"
