"""The demo's outcome as one HTML file: the table, and pictures before and after. It needs nothing but a browser."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1f }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .35rem .9rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #1b1b1f }
tbody tr { border-bottom: 1px solid #d8d8de }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0; display: grid; grid-template-columns: repeat(3, 1fr); gap: 2px }
figure img { width: 100%; image-rendering: pixelated } figcaption { grid-column: 1 / 4; font-size: .85rem }
.note { color: #55555f; font-size: .9rem }
"""


@dataclass(frozen=True)
class Example:
    """One image on its way: as it was drawn, as it lay in the training set, as it was regenerated."""

    caption: str
    images: tuple[Path, Path, Path]


def write_page(
    path: Path,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    shown: Sequence[Example],
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        title: its heading.
        head: the table's column titles.
        rows: the table; cells as text.
        notes: paragraphs below the table.
        shown: pictures; they are taken into the file.
    """
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<table><thead>{_row('th', head)}</thead><tbody>{''.join(_row('td', row) for row in rows)}</tbody></table>",
        *(f"<p class=note>{html.escape(note)}</p>" for note in notes),
        "<h2>Pictures: as drawn, as trained on, as regenerated</h2><div class=rows>",
        *(_figure(example) for example in shown),
        "</div>",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _figure(example: Example) -> str:
    images = "".join(f'<img src="{_inline(path)}" alt="">' for path in example.images)
    return f"<figure>{images}<figcaption>{html.escape(example.caption)}</figcaption></figure>"


def _inline(path: Path) -> str:
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
