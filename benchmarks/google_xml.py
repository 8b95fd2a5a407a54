"""Google's XML interface before a fake-gcs-server, which speaks only the JSON interface where something is written.

The library that diffclean reads and writes buckets with uses the XML interface alone. This translator passes reading on
as it is, and turns each write into one upload of the JSON interface, with its condition. It also does what the server
does not: it asks for a token, honours `If-Match`, and says which bucket does not exist.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "a-token-of-the-trial"
_BOUNDARY = "a-boundary-that-no-content-has-8f1d"
_DROPPED = ("transfer-encoding", "connection", "server", "date", "content-length")
Reply = tuple[int, Mapping[str, str], bytes]


@contextmanager
def translated(port: int) -> Iterator[str]:
    """The address of a translator before a fake-gcs-server on this machine."""
    handler = type("Handler", (_Handler,), {"server_port": port, "uploads": {}})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()


def make_bucket(port: int, name: str) -> None:
    """Make a bucket, through the JSON interface."""
    status, _, answer = _asked(port, "POST", "/storage/v1/b?project=p", json.dumps({"name": name}).encode())
    if status != 200:
        raise SystemExit(f"The bucket cannot be made: {answer!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_port: int
    uploads: dict[str, dict[int, bytes]]

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._reply(*self._answer(body))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    def _answer(self, body: bytes) -> Reply:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _refused(401, "AuthenticationRequired")
        url = urlsplit(self.path)
        bucket, _, name = (unquote(part) for part in url.path.strip("/").partition("/"))
        if _asked(self.server_port, "GET", f"/storage/v1/b/{quote(bucket)}")[0] != 200:
            return _refused(404, "NoSuchBucket")
        if self.command == "PUT" or (self.command == "POST" and name):
            return self._write(bucket, name, parse_qs(url.query, keep_blank_values=True), body)
        if self.command == "DELETE":
            status = _asked(self.server_port, "DELETE", self.path)[0]
            return (204, {}, b"") if status in (200, 204) else _refused(404, "NoSuchKey")
        return self._read()

    def _read(self) -> Reply:
        wanted = self.headers.get("If-Match")
        if wanted and _asked(self.server_port, "HEAD", self.path)[1].get("Etag", wanted) != wanted:
            return _refused(412, "PreconditionFailed")
        headers = {name: self.headers[name] for name in ("Range",) if name in self.headers}
        status, answered, data = _asked(self.server_port, self.command, self.path, headers=headers)
        # Google gives tags with quotation marks, in lists, too.
        return status, answered, re.sub(rb"<ETag>([^<&\"]*)</ETag>", rb"<ETag>&quot;\1&quot;</ETag>", data)

    def _write(self, bucket: str, name: str, asked: dict[str, list[str]], body: bytes) -> Reply:
        upload = asked.get("uploadId", [""])[0]
        if "uploads" in asked:
            upload = secrets.token_hex(8)
            self.uploads[upload] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return 200, {"Content-Type": "application/xml"}, text.encode()
        if "partNumber" in asked:
            self.uploads[upload][int(asked["partNumber"][0])] = body
            return 200, {"ETag": f'"part-{asked["partNumber"][0]}"'}, b""
        if upload:
            parts = self.uploads.pop(upload)
            status, headers, data = self._put(bucket, name, b"".join(parts[number] for number in sorted(parts)))
            text = f"<CompleteMultipartUploadResult><ETag>{headers.get('ETag', '')}</ETag>"
            return status, headers, data or f"{text}</CompleteMultipartUploadResult>".encode()
        return self._put(bucket, name, body)

    def _put(self, bucket: str, name: str, data: bytes) -> Reply:
        condition = self.headers.get("x-goog-if-generation-match")
        where = f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=multipart"
        where += f"&ifGenerationMatch={condition}" if condition else ""
        about = json.dumps({"name": name}).encode()
        mark = b"--" + _BOUNDARY.encode()
        body = b"%b\r\nContent-Type: application/json\r\n\r\n%b\r\n" % (mark, about)
        body += b"%b\r\nContent-Type: application/octet-stream\r\n\r\n%b\r\n%b--" % (mark, data, mark)
        headers = {"Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
        status, _, answer = _asked(self.server_port, "POST", where, body, headers)
        if status == 412:
            return _refused(412, "PreconditionFailed")
        if status != 200:
            return _refused(status, "InternalError")
        made = json.loads(answer)
        return 200, {"ETag": f'"{made["etag"]}"', "x-goog-generation": str(made["generation"])}, b""

    def _reply(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() not in _DROPPED:
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def _refused(status: int, code: str) -> Reply:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return status, {"Content-Type": "application/xml"}, text.encode()


def _asked(port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, body, dict(headers or {"Content-Type": "application/json"}))
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()
