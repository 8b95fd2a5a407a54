"""Open a bucket with the credentials that its users have: environment, profile, or the role of the machine.

No credential is taken from an address, kept, or written anywhere.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from diffclean.data.address import SCHEMES, Address
from diffclean.data.bucket_errors import ENDPOINTS, no_credentials, not_reached
from diffclean.errors import DiffcleanError, MissingExtraError

EXTRA = "cloud"
_LIBRARY = "obstore"
_FRESH = timedelta(minutes=5)
"""How long credentials of a profile or a role are used before they are asked for again."""
_ATTEMPTS, _CONNECT_S = 3, 5.0
_RETRIES: Any = {
    "max_retries": 10,
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=20), "base": 2},
    "retry_timeout": timedelta(minutes=3),
}
_S3_OWN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
"""With one of these variables, `obstore` finds the credentials itself."""
_GS_OWN = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
)
_GS_FILE = "application_default_credentials.json"
_AZ_ACCOUNT = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR")


@dataclass(frozen=True)
class Access:
    """How a scheme can be used on this machine.

    Attributes:
        scheme: with `://`.
        usable: whether the library for it is installed.
        reason: what is used, or what is missing.
        hint: what to type; empty if nothing is missing.
    """

    scheme: str
    usable: bool
    reason: str
    hint: str = ""


def accesses() -> list[Access]:
    """For each scheme whether it works here. No request is sent."""
    return [_access(scheme) for scheme in SCHEMES]


def library() -> Any:
    """The library; raises MissingExtraError if it is not installed."""
    if find_spec(_LIBRARY) is None:
        raise MissingExtraError(_LIBRARY, EXTRA)
    import obstore

    return obstore


def opened_bucket(address: Address) -> Any:
    """The store object of the library.

    Raises:
        DiffcleanError: no credentials can be found.
    """
    return _OPENERS[address.scheme](address)


def _open_s3(address: Address) -> Any:
    from obstore.store import S3Store

    config: Any = {}
    endpoint = _endpoint("s3")
    provider: Any = None
    if not any(os.environ.get(name) for name in _S3_OWN):
        session = _profile()
        credentials = session.get_credentials()
        if credentials is None:
            raise no_credentials(address)
        provider = _asked_again(credentials)
        endpoint = endpoint or session.get_scoped_config().get("endpoint_url", "")
        if not os.environ.get("AWS_REGION") and (region := session.get_config_variable("region")):
            config["region"] = region
    if endpoint:
        _check_reached(address, endpoint)
        config["endpoint"] = endpoint
    return S3Store(
        address.bucket,
        config=config,
        client_options=_client(plain=endpoint.startswith("http://")),
        retry_config=_RETRIES,
        credential_provider=provider,
    )


def _open_gs(address: Address) -> Any:
    from obstore.store import GCSStore

    if (
        not any(os.environ.get(name) for name in _GS_OWN)
        and not _has_gs_file()
        and not _resolves("metadata.google.internal")
    ):
        raise no_credentials(address)
    return GCSStore(address.bucket, **_placed(address, "base_url"))


def _open_az(address: Address) -> Any:
    from obstore.store import AzureStore

    if not any(os.environ.get(name) for name in _AZ_ACCOUNT):
        raise no_credentials(address)
    return AzureStore(address.bucket, **_placed(address, "endpoint"))


_OPENERS: Mapping[str, Callable[[Address], Any]] = {"s3": _open_s3, "gs": _open_gs, "az": _open_az}


def _placed(address: Address, setting: str) -> dict[str, Any]:
    """The arguments of a store that says where it lies by one setting, if the environment names an endpoint."""
    endpoint = _endpoint(address.scheme)
    if endpoint:
        _check_reached(address, endpoint)
    return {
        "config": {setting: endpoint} if endpoint else {},
        "client_options": _client(plain=endpoint.startswith("http://")),
        "retry_config": _RETRIES,
    }


def _endpoint(scheme: str) -> str:
    """The address of the store that the environment names; `""`: the one of the scheme's owner."""
    return next((found for name in ENDPOINTS[scheme] if (found := os.environ.get(name))), "")


def _client(plain: bool = False) -> Any:
    """Options of the connections; `plain` permits HTTP, which a store on one's own machine may speak."""
    from diffclean import __version__

    options: dict[str, Any] = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=2)}
    return options | {"user_agent": f"diffclean/{__version__}"} | ({"allow_http": True} if plain else {})


def _profile() -> Any:
    """A session of botocore, which reads profiles and asks the machine for its role."""
    if find_spec("botocore") is None:
        raise MissingExtraError("botocore, which reads profiles,", EXTRA)
    import botocore.exceptions
    import botocore.session

    session = botocore.session.get_session()
    try:
        session.get_scoped_config()
    except botocore.exceptions.BotoCoreError as error:
        raise DiffcleanError(
            f"The profile of AWS_PROFILE cannot be used ({type(error).__name__}).", "See: aws configure list-profiles"
        ) from None
    return session


def _check_reached(address: Address, endpoint: str) -> None:
    """Say at once that nobody listens at an endpoint; requests would be repeated for a minute before."""
    parts = urlsplit(endpoint)
    if getproxies() or parts.hostname is None:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for attempt in range(_ATTEMPTS):
        try:
            socket.create_connection((parts.hostname, port), _CONNECT_S).close()
            return
        except OSError as error:
            if attempt + 1 == _ATTEMPTS:
                raise not_reached(address) from error
        time.sleep(1)


def _asked_again(credentials: Any) -> Callable[[], dict[str, Any]]:
    def provide() -> dict[str, Any]:
        now = credentials.get_frozen_credentials()  # renews those that expire
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + _FRESH,
        }

    return provide


def _has_gs_file() -> bool:
    base = os.environ.get("CLOUDSDK_CONFIG") or str(Path.home() / ".config/gcloud")
    return (Path(base) / _GS_FILE).is_file()


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 80)
    except OSError:
        return False
    return True


def _access(scheme: str) -> Access:
    if find_spec(_LIBRARY) is None:
        return Access(f"{scheme}://", False, f"{_LIBRARY} is not installed", f"pip install 'diffclean[{EXTRA}]'")
    return Access(f"{scheme}://", True, f"{SCHEMES[scheme]}; {_credentials_here(scheme)}")


def _credentials_here(scheme: str) -> str:
    """Where the credentials would come from; never their values."""
    names = {"s3": _S3_OWN, "gs": _GS_OWN, "az": _AZ_ACCOUNT}[scheme]
    if found := [name for name in names if os.environ.get(name)]:
        return f"credentials from {found[0]}"
    if scheme == "s3" and find_spec("botocore") is not None:
        return f"credentials from the profile {os.environ.get('AWS_PROFILE', 'default')} or the machine's role"
    if scheme == "gs" and _has_gs_file():
        return "credentials of gcloud"
    return "no credentials in the environment"
