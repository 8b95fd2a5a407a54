"""Serves a page on this machine in which a person reviews suspects. Only the standard library is used.

The server listens on the loopback interface, and every path begins with a random token, so nobody can do anything
without the address. A foreign page in the same browser cannot either: requests must name this server as their host
(against DNS rebinding), and a request that changes something must come from this page (`Origin`). Pictures are
requested by number, never by path.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, socket
from threading import Thread
from typing import Any

from diffclean.data.suspects import JudgedImage
from diffclean.display.style import safe
from diffclean.errors import DiffcleanError
from diffclean.report.page import TEMPLATES, environment
from diffclean.report.review import Pictures, Places
from diffclean.report.reviewed_list import ReviewedList
from diffclean.report.words import shown
from diffclean.results import plain

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_BODY_LIMIT_BYTES = 1024
_IDLE_S = 60
_FILES = {"style.css": "text/css", "review.css": "text/css", "review.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    kind: str = "text/plain"
    body: bytes = b""
    cache: str = "no-store"


class ReviewServer:
    """Serves one review until it is closed.

    Args:
        places: the places of the list and the images.
        port: the port on this machine; 0 takes a free one.

    Attributes:
        url: the address with its token. Anyone who has it can change the list.

    Raises:
        DiffcleanError: the list or the data cannot be read, or the port is taken.
    """

    def __init__(self, places: Places, port: int = 0) -> None:
        self.listed = ReviewedList(places.list)
        self.pictures = Pictures(places, self.listed)
        self.token = secrets.token_urlsafe(24)
        try:
            self._server = _Server((_LOOPBACK, port), self)
        except OSError as error:
            raise DiffcleanError(f"Port {port} cannot be used: {error.strerror}.", "Choose another --port.") from error
        self.port = self._server.server_address[1]
        self.hosts = {f"{name}:{self.port}" for name in (_LOOPBACK, "localhost")}
        self.url = f"http://{_LOOPBACK}:{self.port}/{self.token}/"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and write the decisions that are not written yet; raises like `ReviewedList.close`.

        Open connections are ended first, so that no decision is answered that is not written any more.
        """
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.listed.close()

    def get(self, path: str) -> Answer:
        """Answer a GET request for a path after the token."""
        match path.split("/"):
            case [""]:
                return self._page()
            case [name] if name in _FILES:
                return Answer(200, _FILES[name], (TEMPLATES / name).read_bytes())
            case ["images.json"]:
                return _json([_row(image) for image in self.listed.rows()])
            case ["state.json"]:
                return self._state()
            case ["picture", kind, row] if kind in self.pictures.kinds and row.isascii() and row.isdigit():
                return self._picture(kind, int(row[:9]))
        return Answer(404, body=b"There is no such page.")

    def decide(self, body: bytes) -> Answer:
        """Answer a POST request with a decision: `{"row": 17, "suspect": true}`."""
        try:
            said = json.loads(body)
            row, suspect = said["row"], said["suspect"]
            if type(row) is not int or type(suspect) is not bool:
                raise ValueError
            self.listed.decide(row, suspect)
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            return Answer(400, body=b"That is no decision.")
        return self._state()

    def _page(self) -> Answer:
        rows = self.listed.rows()
        labels = sorted({shown(row.label) for row in rows if row.label})
        text = (
            environment()
            .get_template("review.html.j2")
            .render(name=str(self.listed.path), kinds=self.pictures.kinds, labels=labels, count=len(rows))
        )
        return Answer(200, "text/html; charset=utf-8", text.encode())

    def _state(self) -> Answer:
        return _json({"written": self.listed.is_written, "problem": self.listed.problem})

    def _picture(self, kind: str, row: int) -> Answer:
        try:
            made = self.pictures.get(kind, row)
        except IndexError:
            return Answer(404, body=b"There is no such picture.")
        if isinstance(made, str):
            return Answer(404, body=safe(made).encode())
        return Answer(200, "image/webp", made.data, "private, max-age=3600")


def _row(image: JudgedImage) -> dict[str, Any]:
    texts = {"key": shown(image.key), "label": shown(image.label)}
    return {**texts, "probability": image.probability, "suspect": image.suspect}


def _json(data: Any) -> Answer:
    return Answer(200, "application/json", json.dumps(plain(data)).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], review: ReviewServer) -> None:
        self.review = review
        self._connections: set[socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Stop listening, and end the connections that browsers keep open for their next request."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):  # its browser or its thread was faster
                connection.shutdown(SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a bug, but none where a browser has closed a connection that it no longer needs."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Turns HTTP requests into calls of `ReviewServer` after it has checked where they come from."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        path = self._path_if_allowed()
        self._send(Answer(403, body=b"Not allowed.") if path is None else self.server.review.get(path))

    def do_POST(self) -> None:
        path = self._path_if_allowed()
        origins = {f"http://{host}" for host in self.server.review.hosts}
        if path is None or self.headers.get("Origin") not in origins:
            return self._refuse(403, b"Not allowed.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length[:9]) > _BODY_LIMIT_BYTES:
            return self._refuse(413, b"Too long.")
        body = self.rfile.read(int(length))
        self._send(self.server.review.decide(body) if path == "decide" else Answer(404, body=b"There is no such page."))

    def _path_if_allowed(self) -> str | None:
        """Return the part of the path after the token, or None if the request is not allowed."""
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.review.hosts]:
            return None
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return None
        _, token, *rest = [*self.path.split("/", 2), ""][:3]
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.review.token.encode()):
            return None
        return rest[0]

    def _refuse(self, status: int, body: bytes) -> None:
        """Answer without reading the body of the request, and accept nothing more from this connection."""
        self.close_connection = True
        self._send(Answer(status, body=body))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", answer.cache)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def version_string(self) -> str:
        """Hide the version of Python."""
        return "diffclean"

    def log_message(self, format: str, *args: Any) -> None:
        """Log only that there was a request, because every path contains the token."""
        log.debug("Answered a request.")
