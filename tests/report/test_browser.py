"""The pages in a real browser, where there is one: nothing is cut off, nothing is asked for, keys do what they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from clean_run import clean_run

from diffclean.data.suspects import read_suspects
from diffclean.report.facts import read_facts
from diffclean.report.page import write_page
from diffclean.report.review import places_of
from diffclean.report.review_server import Answer, ReviewServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

ASKED = "performance.getEntriesByType('resource').map((entry) => entry.name)"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
CONTRAST = """
(() => {
  const light = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour.startsWith("rgba(0, 0, 0, 0") && node.parentElement ? ground(node.parentElement) : colour;
  };
  const own = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  return [...document.body.querySelectorAll("*")].filter(own).map((node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((one, two) => two - one);
    return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
})()
"""
"""Texts whose contrast is below 4.5, which is AA of WCAG 2.2 for text of any size."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("hostile", [False, True])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_report_fits_and_can_be_read(tmp_path: Path, page: Page, hostile: bool, width: int) -> None:
    folder = clean_run(tmp_path, 20, hostile=hostile)
    place = write_page(read_facts(folder), folder)
    page.complaints.clear()
    for dark in (False, True):
        page.show(place.as_uri(), width, dark=dark)
        assert page.value(FITS)
        assert page.value(CONTRAST) == []
        assert page.value("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert [name for name in page.value(ASKED) if not name.startswith("data:")] == []
    page.shot(tmp_path / "page.png")
    assert page.complaints == []


def test_keys_keep_drop_and_undo(tmp_path: Path, page: Page) -> None:
    folder = clean_run(tmp_path, 12)
    server = ReviewServer(places_of(folder / "suspects.json"))
    page.complaints.clear()
    page.show(server.url, 900)
    page.until("document.querySelectorAll('.card').length === 12")
    page.until("document.querySelector('.card img').naturalWidth > 0")
    rows = [row.key for row in server.listed.rows()]
    for key in ("k", "k", "ArrowRight", "k", "u", "ArrowDown", "k", "ArrowLeft", "k", "d"):
        page.press(key)
    page.until("document.getElementById('state').textContent === 'written'")
    said = page.value("document.getElementById('counts').textContent")
    assert page.value(FITS)
    assert page.value(CONTRAST) == []
    assert page.complaints == []
    server.close()
    assert said == "9 dropped, 3 kept"
    assert read_suspects(folder / "suspects.json") == set(rows) - {rows[0], rows[1], rows[7]}, "four cards a row"


def test_decisions_keep_their_order_where_the_first_takes_long(
    tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clean_run(tmp_path, 3)
    server = ReviewServer(places_of(folder / "suspects.json"))
    decide, pauses = server.decide, iter([0.5])

    def late(body: bytes) -> Answer:
        time.sleep(next(pauses, 0))
        return decide(body)

    monkeypatch.setattr(server, "decide", late)
    page.show(server.url, 900)
    page.until("document.querySelectorAll('.card').length === 3")
    for key in ("k", "u"):
        page.press(key)
    page.until("document.getElementById('state').textContent === 'written'")
    assert page.value("document.getElementById('counts').textContent") == "3 dropped, 0 kept"
    server.close()
    assert len(read_suspects(folder / "suspects.json")) == 3


def test_a_decision_that_does_not_arrive_is_not_shown_as_made(tmp_path: Path, page: Page) -> None:
    folder = clean_run(tmp_path, 3)
    server = ReviewServer(places_of(folder / "suspects.json"))
    page.show(server.url, 900)
    page.until("document.querySelectorAll('.card').length === 3")
    server.close()
    page.press("k")
    page.until("document.getElementById('state').textContent.startsWith('This decision did not arrive')")
    assert page.value("document.getElementById('counts').textContent") == "3 dropped, 0 kept"
    page.complaints.clear()


def test_five_thousand_suspects_come_a_page_at_a_time(tmp_path: Path, page: Page) -> None:
    folder = clean_run(tmp_path, 5_000)
    server = ReviewServer(places_of(folder / "suspects.json"))
    page.show(server.url, 360)
    page.until("document.querySelectorAll('.card').length === 120")
    page.until("document.querySelector('.card img').naturalWidth > 0")
    assert page.value(FITS)
    assert 0 < sum("/picture/" in name for name in page.value(ASKED)) <= 240
    assert page.value("document.getElementById('range').textContent") == "1 to 120 of 5,000"
    for _ in range(60):
        page.press("ArrowDown")  # two cards a row
    assert page.value("document.getElementById('range').textContent") == "121 to 240 of 5,000"
    page.press("k")
    page.value("document.getElementById('later').click()")
    assert page.value("document.activeElement.dataset.row") == "240"
    page.press("u")
    assert page.value("document.activeElement.dataset.row") == "120"
    assert page.value("document.getElementById('counts').textContent") == "5,000 dropped, 0 kept"
    server.close()
