"""The page holds everything in one file."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from diffclean.workflow.page import Example, write_page


def test_the_page_shows_table_notes_and_pictures(tmp_path: Path) -> None:
    paths = []
    for index, name in enumerate(("a.jpg", "b.png", "c.png")):
        Image.new("RGB", (8, 8), (80 * index, 0, 0)).save(tmp_path / name)
        paths.append(tmp_path / name)
    page = tmp_path / "page.html"
    shown = [Example("stop <sign>", (paths[0], paths[1], paths[2]))]
    write_page(page, "A & B", ["", "CA"], [["teacher", "91.0 %"]], ["One note."], shown)
    text = page.read_text()
    assert "<h1>A &amp; B</h1>" in text
    assert "<td>91.0 %</td>" in text
    assert "stop &lt;sign&gt;" in text
    assert "One note." in text
    assert len(re.findall(r'src="data:image/(?:png|jpeg);base64,', text)) == 3
    assert not re.search(r'(?:src|href)="(?!data:)', text)  # nothing is fetched
