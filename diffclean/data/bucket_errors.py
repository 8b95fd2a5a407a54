"""What a store's refusals mean, in words, without the texts of the store, which can quote credentials."""

from __future__ import annotations

import re
from collections.abc import Callable

from diffclean.data.address import Address
from diffclean.data.keys import safe_text
from diffclean.errors import DiffcleanError

AGAIN = "run the same command again: it resumes."
_CODE = re.compile(r"<Code>(\w+)</Code>|\"reason\": ?\"(\w+)\"|x-ms-error-code[\"': ]+(\w+)")
_STATUS = re.compile(r"\b(?:status|Status)(?: code)?[:( ]+([345]\d\d)")
_EXPECTED_REGION = re.compile(r"expecting '([a-z0-9-]+)'|<Region>([a-z0-9-]+)</Region>")
_NO_PATH = re.compile(r"path segment|illegal character|Error parsing Path", re.I)
_UNREACHED = re.compile(r"error sending request|connect|dns error|timed? ?out|HTTP error", re.I)
_ROLE = re.compile(r"169\.254\.\d|metadata\.google|/metadata/identity")

ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
"""Scheme -> the variables that may name the address of a store other than its owner's; the first that is set counts."""
_WHERE_THEY_ARE = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role; for a public "
    "bucket set AWS_SKIP_SIGNATURE=true.",
    "gs": "Set GOOGLE_APPLICATION_CREDENTIALS, or type: gcloud auth application-default login; for a public bucket set "
    "GOOGLE_SKIP_SIGNATURE=true.",
    "az": "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or give this "
    "machine an identity.",
}
_OWNERS = {"s3": "Amazon's", "gs": "Google's", "az": "Azure"}
_REGION = "Set AWS_REGION to the region of the bucket"


class StoreError(DiffcleanError):
    """A bucket cannot be used, and continuing would only fail again."""


class MissingError(StoreError):
    """There is no such object."""


class ChangedError(StoreError):
    """An object is not in the state that was required."""


class RefusedError(StoreError):
    """These credentials do not permit it."""


class BadNameError(StoreError):
    """The store does not take an object of this name; other objects are not affected."""


def no_credentials(address: Address) -> StoreError:
    """The error for a bucket for which no credentials can be found."""
    return StoreError(f"There are no credentials for {address}.", _WHERE_THEY_ARE[address.scheme])


def not_reached(bucket: Address) -> StoreError:
    """The error for a store that does not answer at all."""
    variable = ENDPOINTS[bucket.scheme][-1]
    return StoreError(
        f"The store of {bucket} cannot be reached.", f"Check the network, and {variable} if it is set; then {AGAIN}"
    )


def explained(error: Exception, doing: str, bucket: Address, name: str) -> StoreError | None:
    """Say what an error of the library means.

    Args:
        error: what the library raised.
        doing: "list", "read" or "write".
        bucket: the bucket.
        name: the object or folder.

    Returns:
        None if the error does not come from the store: it is a bug then.
    """
    kind, text = type(error).__name__, str(error)
    if not (isinstance(error, FileNotFoundError) or type(error).__module__.startswith("obstore")):
        return None
    found = _CODE.search(text)
    code = next((each for each in found.groups() if each), "") if found else ""
    where = safe_text(f"{bucket}/{name}") if name else str(bucket)
    for codes, explain in _BY_CODE:
        if code in codes:
            return explain(code, where, bucket, text)
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{where} does not exist.")
    if kind in ("PreconditionError", "AlreadyExistsError"):
        return ChangedError(f"{where} was changed meanwhile.", AGAIN.capitalize())
    if kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return _refused(code or kind, where, doing)
    if kind == "InvalidPathError" or _NO_PATH.search(text):
        return BadNameError(
            f"{where} has objects whose names are no paths, such as a//b, a/../b, or a name with control characters.",
            "Rename these objects, or name a folder without them.",
        )
    return _other(text, code, doing, where, bucket)


def _other(text: str, code: str, doing: str, where: str, bucket: Address) -> StoreError:
    if "redirect without LOCATION" in text:
        return _region(code, where, bucket, text)
    if _ROLE.search(text):  # the machine was asked for its role, and has none
        return no_credentials(bucket)
    status = _STATUS.search(text)
    if status:
        number = status[1]
        if number in ("401", "403"):
            return _refused(code or number, where, doing)
        why = f"the store answered {number}{f' ({code})' if code else ''}"
        if number.startswith("5"):
            why += " again and again"
        what = "Wait" if number.startswith("5") else "Mend that"
        return StoreError(f"Cannot {doing} {where}: {why}.", f"{what}, then {AGAIN}")
    if _UNREACHED.search(text):
        return not_reached(bucket)
    return StoreError(f"Cannot {doing} {where}{f' ({code})' if code else ''}.", f"Mend that, then {AGAIN}")


def _refused(code: str, where: str, doing: str) -> StoreError:
    verb = {"list": "listed", "read": "read", "write": "written"}[doing]
    return RefusedError(
        f"{where} may not be {verb} with these credentials ({code}).",
        "Ask the owner of the bucket for the permission, or name another place.",
    )


def _no_bucket(code: str, where: str, bucket: Address, text: str) -> StoreError:
    owner, variable = _OWNERS[bucket.scheme], ENDPOINTS[bucket.scheme][-1]
    kind = "container" if bucket.scheme == "az" else "bucket"
    return StoreError(
        f"There is no {kind} {bucket}.", f"Check the name; for a store other than {owner} set {variable}."
    )


def _bad_credentials(code: str, where: str, bucket: Address, text: str) -> StoreError:
    return StoreError(
        f"The credentials for {bucket} are not accepted ({code}).", f"{_WHERE_THEY_ARE[bucket.scheme]} Then {AGAIN}"
    )


def _region(code: str, where: str, bucket: Address, text: str) -> StoreError:
    found = _EXPECTED_REGION.search(text)
    region = next((each for each in found.groups() if each), "") if found else ""
    hint = f"export AWS_REGION={region}" if region else f"{_REGION}, and AWS_ENDPOINT_URL if it is not one of Amazon's."
    return StoreError(
        f"{bucket} lies in another region than the one that was asked{f' ({code})' if code else ''}.", hint
    )


def _clock(code: str, where: str, bucket: Address, text: str) -> StoreError:
    return StoreError(
        f"The clock of this machine differs from that of {bucket} by more than is allowed ({code}).",
        f"Set the clock, then {AGAIN}",
    )


def _long_name(code: str, where: str, bucket: Address, text: str) -> StoreError:
    return BadNameError(f"The store does not take the name {where} ({code}).", "Rename the image in the source.")


def _unconditional(code: str, where: str, bucket: Address, text: str) -> StoreError:
    return StoreError(
        f"{bucket} does not support conditional writes ({code}), so two runs could write one output.",
        "Name a folder on this machine as `out`, and copy it to the bucket afterwards.",
    )


_Explain = Callable[[str, str, Address, str], StoreError]
_BY_CODE: tuple[tuple[frozenset[str], _Explain], ...] = (
    (frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"}), _no_bucket),
    (
        frozenset(
            {
                "AuthenticationFailed",
                "ExpiredToken",
                "InvalidAccessKeyId",
                "InvalidToken",
                "SignatureDoesNotMatch",
                "TokenRefreshRequired",
            }
        ),
        _bad_credentials,
    ),
    (
        frozenset(
            {
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraintException",
                "PermanentRedirect",
                "TemporaryRedirect",
            }
        ),
        _region,
    ),
    (frozenset({"RequestTimeTooSkewed", "RequestExpired"}), _clock),
    (frozenset({"KeyTooLongError", "InvalidResourceName", "InvalidUri", "InvalidURI"}), _long_name),
    (frozenset({"NotImplemented"}), _unconditional),
)
