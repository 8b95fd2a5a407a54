"""A review over real HTTP on this machine: what it changes, and whom it answers."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse, NotConnected
from pathlib import Path

import pytest
from bucket_server import Bucket
from clean_run import clean_run
from data_sets import files_below
from PIL import Image

from diffclean.data.suspects import read_list, read_suspects
from diffclean.errors import DiffcleanError
from diffclean.report.facts import REPORT_FILE, read_facts
from diffclean.report.review import places_of
from diffclean.report.review_server import ReviewServer


class Browser:
    """What a browser sends, unless told otherwise."""

    def __init__(self, server: ReviewServer) -> None:
        self.server, self.host = server, f"127.0.0.1:{server.port}"

    def ask(self, path: str, body: str | None = None, token: str | None = None, **headers: str) -> HTTPResponse:
        sent = {"Host": self.host} | ({"Origin": f"http://{self.host}"} if body is not None else {})
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection(self.host, timeout=20)
        place = f"/{token or self.server.token}/{path}"
        connection.putrequest("GET" if body is None else "POST", place, skip_host=True)
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        if body is not None and "Content-Length" not in sent:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders((body or "").encode())
        return connection.getresponse()

    def decide(self, row: int, suspect: bool) -> None:
        assert self.ask("decide", json.dumps({"row": row, "suspect": suspect})).status == 200

    def rows(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.load(self.ask("images.json"))
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return clean_run(tmp_path)


@pytest.fixture
def browser(folder: Path) -> Iterator[Browser]:
    """A list alone, without variations."""
    server = ReviewServer(places_of(folder / "suspects.json"))
    yield Browser(server)
    server.close()


def test_decisions_are_in_the_list_that_without_reads(browser: Browser, folder: Path) -> None:
    before = (folder / "suspects.json").read_bytes()
    rows = browser.rows()
    assert [row["key"] for row in rows][:2] == ["limit-80/s00003.png", "limit-80/s00001.png"]
    assert len(rows) == 10
    for row in (0, 1, 2):
        browser.decide(row, suspect=False)
    browser.decide(2, suspect=True)
    browser.server.close()
    found = read_list(folder / "suspects.json")
    assert len(found.keys) == 8
    assert not found.keys & {rows[0]["key"], rows[1]["key"]}
    assert found.detector == "isolate"
    assert len(found.images) == 50
    assert (folder / "suspects.before-review.json").read_bytes() == before


def test_pictures_are_shown_of_data_and_variations_in_a_bucket(folder: Path, bucket: Bucket) -> None:
    kinds = ("original", "variation")
    own = ReviewServer(places_of(folder))
    here = [own.pictures.get(kind, 0) for kind in kinds]
    own.close()
    places = places_of(folder)
    for name, place in (("data", places.data), ("variations", places.variations)):
        bucket.put({f"{name}/{path}": data for path, data in files_below(Path(str(place))).items()})
    server = ReviewServer(places_of(folder / "suspects.json", Path(bucket / "data"), Path(bucket / "variations")))
    assert [server.pictures.get(kind, 0) for kind in server.pictures.kinds] == here
    server.close()


def test_a_kept_image_is_shown_again_and_can_be_dropped_in_the_next_review(folder: Path) -> None:
    for suspect, left in ((False, 9), (True, 10)):
        server = ReviewServer(places_of(folder / "suspects.json"))
        assert len(Browser(server).rows()) == 10
        Browser(server).decide(4, suspect)
        server.close()
        assert len(read_suspects(folder / "suspects.json")) == left


def test_a_list_that_the_detector_made_anew_is_reviewed_from_the_beginning(folder: Path) -> None:
    path = folder / "suspects.json"
    server = ReviewServer(places_of(path))
    Browser(server).decide(4, suspect=False)
    server.close()
    anew = read_list(path)
    anew.images[0] = replace(anew.images[0], score=0.123)
    anew.write(path)
    made_anew = path.read_bytes()
    server = ReviewServer(places_of(path))
    assert len(Browser(server).rows()) == 9
    Browser(server).decide(0, suspect=False)
    server.close()
    assert (folder / "suspects.before-review.json").read_bytes() == made_anew


def test_a_review_that_changes_nothing_writes_nothing(folder: Path) -> None:
    before = (folder / "suspects.json").stat()
    ReviewServer(places_of(folder / "suspects.json")).close()
    assert (folder / "suspects.json").stat().st_mtime_ns == before.st_mtime_ns
    assert not (folder / "suspects.before-review.json").exists()


def test_a_list_that_somebody_else_changed_is_not_overwritten(folder: Path) -> None:
    server = ReviewServer(places_of(folder / "suspects.json"))
    (folder / "suspects.json").write_text('["limit-80/s00001.png"]')
    Browser(server).decide(0, suspect=False)
    with pytest.raises(DiffcleanError, match="changed by somebody else"):
        server.close()
    assert (folder / "suspects.json").read_text() == '["limit-80/s00001.png"]'


def test_a_csv_list_stays_one(folder: Path) -> None:
    read_list(folder / "suspects.json").write(folder / "mine.csv")
    server = ReviewServer(places_of(folder / "mine.csv", data=folder.parent / "signs"))
    Browser(server).decide(0, suspect=False)
    server.close()
    assert (folder / "mine.csv").read_text().startswith("key,label,score,probability,suspect\n")
    assert len(read_suspects(folder / "mine.csv")) == 9


def test_pictures_are_small_and_come_by_number(browser: Browser) -> None:
    answer = browser.ask("picture/original/0")
    assert answer.getheader("Content-Type") == "image/webp"
    assert Image.open(io.BytesIO(answer.read())).size == (48, 48)
    for path in (
        "picture/original/10",
        "picture/original/99999999999999999999",
        "picture/original/-1",
        "picture/original/../../suspects.json",
        "picture/variation/0",
        "picture//0",
        "../suspects.json",
        "..%2fsuspects.json",
        "review.html.j2",
        "suspects.json",
    ):
        assert browser.ask(path).status == 404, path


def test_variations_stand_beside_the_originals_of_a_clean_run(folder: Path) -> None:
    server = ReviewServer(places_of(folder))
    page = Browser(server).ask("").read().decode()
    assert 'data-kinds="original variation"' in page
    original, variation = (Browser(server).ask(f"picture/{kind}/3").read() for kind in ("original", "variation"))
    assert original != variation
    assert variation.startswith(b"RIFF")
    server.close()
    (folder / "variations" / "manifest.parquet").unlink()
    assert places_of(folder).variations is None


def test_a_link_that_leads_out_of_the_data_is_not_served(folder: Path, tmp_path: Path) -> None:
    key = next(iter(sorted(read_suspects(folder / "suspects.json"))))
    secret = tmp_path / "secret.png"
    shutil.copy(folder.parent / "signs" / key, secret)
    (folder.parent / "signs" / key).unlink()
    (folder.parent / "signs" / key).symlink_to(secret)
    server = ReviewServer(places_of(folder / "suspects.json"))
    row = next(number for number, row in enumerate(Browser(server).rows()) if row["key"] == key)
    answer = Browser(server).ask(f"picture/original/{row}")
    assert answer.status == 404
    assert b"link" in answer.read()
    server.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"token": "guess"},
        {"token": "%C3%A9"},
        {"Host": "evil.example"},
        {"Host": ""},
        {"Host": "127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_strangers_are_turned_away(browser: Browser, headers: dict[str, str]) -> None:
    token = headers.pop("token", None)
    for path in ("", "images.json", "picture/original/0"):
        assert browser.ask(path, token=token, **headers).status == 403


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "https://127.0.0.1"])
def test_other_pages_cannot_decide(browser: Browser, folder: Path, origin: str) -> None:
    before = (folder / "suspects.json").read_bytes()
    assert browser.ask("decide", '{"row": 0, "suspect": false}', Origin=origin).status == 403
    browser.server.close()
    assert (folder / "suspects.json").read_bytes() == before


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "7", '{"row": 0}', '{"row": 99, "suspect": true}', '{"row": true, "suspect": true}']
)
def test_what_is_no_decision_is_refused(browser: Browser, body: str) -> None:
    assert browser.ask("decide", body).status == 400
    assert browser.ask("decide", "x", Content_Length="99999999").status == 413


def test_a_browser_that_goes_away_is_no_bug(browser: Browser, capfd: pytest.CaptureFixture[str]) -> None:
    """A page that is closed resets its connections; the terminal then showed a traceback."""
    with socket.create_connection(("127.0.0.1", browser.server.port), timeout=20) as gone:
        gone.sendall(b"GET / HTTP/1.1\r\n")
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that closing is a reset
    deadline = time.monotonic() + 10
    while any("process_request" in thread.name for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)  # the thread of that connection ends
    assert browser.ask("").status == 200
    assert "Traceback" not in capfd.readouterr().err


def test_a_closed_review_takes_no_decision_over_a_connection_that_is_still_open(browser: Browser) -> None:
    """Browsers keep connections open; a decision that came over one was answered, and nobody wrote it."""
    kept = HTTPConnection(browser.host, timeout=20)
    kept.auto_open = 0
    kept.connect()

    def decide() -> bytes:
        body, headers = '{"row": 0, "suspect": false}', {"Origin": f"http://{browser.host}"}
        kept.request("POST", f"/{browser.server.token}/decide", body, headers)
        return kept.getresponse().read()

    assert b"written" in decide()
    browser.server.close()
    with pytest.raises((ConnectionError, NotConnected)):
        decide()
    kept.close()


def test_the_page_asks_nobody_else_for_anything(browser: Browser) -> None:
    answer = browser.ask("")
    assert "default-src 'none'" in str(answer.getheader("Content-Security-Policy"))
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    text = answer.read().decode()
    assert "http" not in text.replace("http-equiv", "")
    for name in ("style.css", "review.css", "review.js"):
        assert f'"{name}"' in text
        assert browser.ask(name).status == 200


def test_five_thousand_suspects_by_several_hands_at_once(tmp_path: Path) -> None:
    folder = clean_run(tmp_path, 5_000)
    server = ReviewServer(places_of(folder / "suspects.json"))
    browser = Browser(server)
    assert len(browser.rows()) == 5_000
    shares = [range(first, 200, 4) for first in range(4)]
    hands = [threading.Thread(target=lambda rows=rows: [browser.decide(row, False) for row in rows]) for rows in shares]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    server.close()
    assert len(read_suspects(folder / "suspects.json")) == 4_800


def test_where_a_review_finds_its_data(folder: Path, tmp_path: Path) -> None:
    assert places_of(folder).list == folder / "suspects.json"
    assert places_of(folder).data == str(folder.parent / "signs")
    assert places_of(folder).variations == folder / "variations"
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "suspects.json").write_text('["a.png"]')
    with pytest.raises(DiffcleanError, match="does not say where they are"):
        places_of(tmp_path / "list")
    assert places_of(tmp_path / "list", data=tmp_path).data == str(tmp_path)
    with pytest.raises(DiffcleanError, match="suspects DATA"):
        places_of(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../suspects.json", "/etc/passwd", "a/../../suspects.json"])
def test_a_report_cannot_name_a_list_outside_its_folder(folder: Path, name: str) -> None:
    content = json.loads((folder / REPORT_FILE).read_text())
    content["folders"]["suspects"] = name
    (folder / REPORT_FILE).write_text(json.dumps(content))
    assert read_facts(folder).folders.suspects == name
    with pytest.raises(DiffcleanError):
        places_of(folder)
