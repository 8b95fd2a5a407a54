"""Addresses of data in buckets: `s3://bucket/folder`, `gs://bucket/folder` and `az://container/folder`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike

from diffclean.errors import UsageError

SCHEMES = {
    "s3": "Amazon S3, and stores with its interface (MinIO, Ceph, R2 ...)",
    "gs": "Google Cloud Storage",
    "az": "Azure Blob Storage",
}
"""Scheme -> what it stands for."""
_ALIASES = {
    "gcs": "gs",
    "s3a": "s3",
    "s3n": "s3",
    "abfs": "az",
    "abfss": "az",
    "wasb": "az",
    "wasbs": "az",
    "adl": "az",
    "azure": "az",
}
"""What other tools call these schemes."""
_FOREIGN = ("hdfs", "webhdfs", "hf", "http", "https", "ftp", "sftp", "ssh", "oss", "dbfs")
_ANY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
# `pathlib` turns `s3://bucket` into `s3:/bucket`, and most functions take paths: both spellings are one address.
_KNOWN = re.compile(rf"({'|'.join(SCHEMES)}):/+(.*)", re.DOTALL | re.IGNORECASE)
_OTHERS = re.compile(rf"({'|'.join((*_ALIASES, *_FOREIGN))}):/+(.*)", re.DOTALL | re.IGNORECASE)
_SIGNED = re.compile(r"[?&](X-Amz-|X-Goog-|AWSAccessKeyId=|Signature=|sig=)", re.IGNORECASE)
_HOW = "Credentials come from the environment, a profile or the machine's role, see docs/buckets.md. Give "


@dataclass(frozen=True)
class Address:
    """A place in a bucket.

    Attributes:
        scheme: a key of `SCHEMES`.
        bucket: the name of the bucket (of the container in Azure).
        path: the path in the bucket, without slashes at its ends. `""`: the whole bucket.
    """

    scheme: str
    bucket: str
    path: str = ""

    @classmethod
    def parse(cls, where: str | PathLike[str]) -> Address:
        """Parse an address.

        Raises:
            UsageError: the scheme is unknown, there is no bucket, the path cannot be that of an object, or credentials
                are part of the address. The message does not repeat them.
        """
        text = str(where)
        found = _matched(text)
        if found is None or found[1].lower() not in SCHEMES:
            raise _unknown(found[1] if found else "")
        scheme, rest = found[1].lower(), found[2]
        bucket, _, path = rest.strip("/").partition("/")
        if "@" in bucket or ":" in bucket or _SIGNED.search(rest):
            raise UsageError(
                f"The address {scheme}://... holds credentials, which others could see in the list of processes.",
                f"{_HOW}{scheme}://BUCKET/FOLDER alone.",
            )
        if not bucket:
            raise UsageError(f"{scheme}:// names no bucket.", f"Give {scheme}://BUCKET/FOLDER.")
        if any(part in ("", ".", "..") for part in path.split("/")) and path:
            raise UsageError(f"{scheme}://{rest} has an empty, '.' or '..' part.", "Give the address without it.")
        return cls(scheme, bucket, path)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.path}" if self.path else "")

    def __truediv__(self, name: str) -> Address:
        return Address(self.scheme, self.bucket, f"{self.path}/{name}" if self.path else name)

    def contains(self, other: Address) -> bool:
        """Whether another address is this one or lies below it."""
        same = (self.scheme, self.bucket) == (other.scheme, other.bucket)
        return same and (not self.path or f"{other.path}/".startswith(f"{self.path}/"))


def is_address(where: str | PathLike[str]) -> bool:
    """Whether this is an address and not a path."""
    return _matched(str(where)) is not None


def spelled(where: str | PathLike[str]) -> str:
    """The one spelling of an address; a path as it is.

    Raises:
        UsageError: as for `Address.parse`.
    """
    return str(Address.parse(where)) if is_address(where) else str(where)


def _matched(text: str) -> re.Match[str] | None:
    return _KNOWN.fullmatch(text) or _ANY.fullmatch(text) or _OTHERS.fullmatch(text)


def _unknown(scheme: str) -> UsageError:
    """The error for a scheme that is not one of `SCHEMES`."""
    hint = f"Expected a folder or file, or an address that begins with {_named()}."
    own = _ALIASES.get(scheme.lower())
    if own is not None:
        hint = f"diffclean calls it {own}://. Give {own}://BUCKET/FOLDER, see docs/buckets.md."
    elif scheme:
        hint += " Copy the data to a folder with the tools of that store, or mount it as one, and give the folder."
    return UsageError(f"diffclean cannot read or write {f'{scheme}://' if scheme else 'it'}.", hint)


def _named() -> str:
    *first, last = (f"{scheme}://" for scheme in SCHEMES)
    return f"{', '.join(first)} or {last}"
