"""An S3 server on loopback, and a proxy before it that can fail on purpose and sees every request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from diffclean.data.address import Address
from diffclean.data.store import Store

Answer = tuple[int, str] | None
"""A status and a code with which a request is refused; None: it is passed on."""
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "a-key-of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_REGION": "us-east-1",
}


@dataclass
class Bucket:
    """A bucket of a test.

    Attributes:
        name: of the bucket.
        endpoint: the address of the proxy.
        requests: every request that came: method, path below the bucket, range.
        refuse: decides about each request.
        cut: decides whether the reply to a request breaks off in its middle.
    """

    name: str
    endpoint: str
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: Callable[[str, str], Answer] = lambda method, path: None
    cut: Callable[[str, str], bool] = lambda method, path: False

    @property
    def store(self) -> Store:
        return Store(Address("s3", self.name))

    def __truediv__(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    def put(self, objects: dict[str, bytes]) -> None:
        for name, data in objects.items():
            self.store.put(name, data)

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """Name below a folder -> content."""
        cut = len(folder) + 1 if folder else 0
        store = self.store
        return {each.name[cut:]: store.get(each.name) for chunk in store.below(folder) for each in chunk}

    def bytes_read(self, ending: str) -> list[str]:
        """The ranges that were read of objects with this ending."""
        return [part for method, path, part in self.requests if method == "GET" and path.endswith(ending)]


@contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of a server of moto's, which keeps everything in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


def make_bucket(server: tuple[str, int], name: str) -> None:
    connection = http.client.HTTPConnection(*server)
    connection.request("PUT", f"/{name}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/us-east-1/s3/x"})
    assert connection.getresponse().status == 200
    connection.close()


@contextmanager
def bucket_on(server: tuple[str, int], name: str) -> Iterator[Bucket]:
    """A new bucket, seen through a proxy."""
    make_bucket(server, name)
    bucket = Bucket(name, "")
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server, bucket))
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    bucket.endpoint = f"http://127.0.0.1:{proxy.server_port}"
    try:
        yield bucket
    finally:
        proxy.shutdown()
        proxy.server_close()


def _handler(server: tuple[str, int], bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0].removeprefix(f"/{bucket.name}").strip("/")
            bucket.requests.append((self.command, path, self.headers.get("Range", "")))
            if (answer := bucket.refuse(self.command, path)) is not None:
                status, code = answer
                text = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self._reply(status, {"Content-Type": "application/xml"}, text)
                return
            connection = http.client.HTTPConnection(*server)
            connection.request(self.command, self.path, body, dict(self.headers))
            reply = connection.getresponse()
            data = reply.read()
            dropped = ("transfer-encoding", "connection", "server", "date")
            headers = {name: value for name, value in reply.getheaders() if name.lower() not in dropped}
            if bucket.cut(self.command, path):
                self._reply(reply.status, headers, data, len(data) // 2)
                self.close_connection = True
            else:
                self._reply(reply.status, headers, data)
            connection.close()

        def _reply(self, status: int, headers: dict[str, str], data: bytes, sent: int | None = None) -> None:
            self.send_response(status)
            if self.command != "HEAD":
                headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
                headers["Content-Length"] = str(len(data))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:sent])

        def log_message(self, *args: object) -> None:
            pass

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    return Handler
