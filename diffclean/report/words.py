"""Formats numbers for the report, and makes foreign text safe to show."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

from diffclean.display.style import safe
from diffclean.evaluation.metrics import Rate

_LONGEST = 240
_NARROW = "\u202f"
"""A narrow space that no line breaks at."""


def shown(value: Any) -> Any:
    """Format a value for the report: spell out control and bidirectional characters, cut long text in its middle.

    Jinja calls it for everything that a template prints, before it escapes it.
    """
    return shortened(safe(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def shortened(text: str) -> str:
    """Shorten a text to at most 240 characters: its beginning and its end."""
    half = _LONGEST // 2
    return text if len(text) <= 2 * _LONGEST else f"{text[:half]} ... {text[-half:]}"


def percent(share: float) -> str:
    """Format 0.982 as `98.2 %`."""
    return f"{100 * share:.1f}{_NARROW}%"


def probability(share: float) -> str:
    """Format like `percent`, but do not round to certainty: `> 99.9 %`, `< 0.1 %`."""
    if 0.9995 <= share < 1:
        return f"> {percent(0.999)}"
    return f"< {percent(0.001)}" if 0 < share < 0.0005 else percent(share)


def rate_value(rate: Rate | None) -> str:
    """Format the rate alone, or a dash if there is none."""
    return percent(rate.value) if rate is not None and rate.count else "\u2013"


def interval(rate: Rate | None) -> str:
    """Format an interval as `97.1 to 98.9 %`; empty if there is none."""
    return f"{100 * rate.low:.1f} to {percent(rate.high)}" if rate is not None and rate.count else ""


def rate_text(rate: Rate | None) -> str:
    """Format a rate with its interval as `98.2 % (97.1 to 98.9 %)`."""
    return f"{rate_value(rate)} ({interval(rate)})" if rate is not None and rate.count else "not measured"


def number(count: float) -> str:
    """Format a number as `12,345`, with decimals if it is not a whole number."""
    return f"{count:,}" if isinstance(count, int) else f"{count:,.4g}"


def images(count: int) -> str:
    """Format a number of images as `1 image` or `12,345 images`."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def one_line(text: str) -> str:
    """Replace line breaks, tabs and runs of spaces in `text` by one space; narrow spaces stay."""
    return re.sub(r"[ \t\n\r\f\v]+", " ", text).strip()


def moment(iso: str) -> str:
    """Format an ISO 8601 time in UTC as `2026-01-31 12:00 UTC`; return anything else unchanged."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?(Z|\+00:00)", iso)
    return f"{found[1]} {found[2]} UTC" if found else iso
