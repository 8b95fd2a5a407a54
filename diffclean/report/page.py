"""Writes the report: one HTML file that needs no network and no script, made from facts and small pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffclean.data.places import place_of, write_at
from diffclean.display.meter import seconds_text
from diffclean.report import words
from diffclean.report.charts import Dial, Histogram, dial, histogram
from diffclean.report.detected import BESIDE, SUREST, UNSUREST
from diffclean.report.facts import ClassScores, Cost, Facts, Pair, Suspect
from diffclean.report.limits import untested
from diffclean.report.pictures import Album, Thumbnail, picture_of
from diffclean.report.verdict import verdict

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_FILE = "report.html"
CLASSES = 36
"""Classes whose scores are drawn; of more, those that are nearest to their limit or above it."""
PAIRS = 24
_ROWS = 200
"""Of any table that could be longer: a page is for people."""
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Card:
    """An image in a gallery: a description, and its pictures or the reason why there are none."""

    image: Suspect
    original: Thumbnail | str
    variation: Thumbnail | str


@dataclass(frozen=True)
class ClassChart:
    """The drawing of the scores and the limit of a class."""

    judged: ClassScores
    scores: Histogram | None
    dial: Dial | None


@dataclass(frozen=True)
class CostRow:
    """The text of a step in the table of costs."""

    name: str
    time: str
    rate: str
    price: str
    note: str


def write_page(facts: Facts, folder: Path, out: Path | None = None) -> Path:
    """Write the report on a run.

    Args:
        facts: the facts about the run.
        folder: the folder of the run, on disk or in a bucket; places in `facts` are relative to it.
        out: the file to write, on disk or in a bucket. None: `report.html` in that folder.

    Returns:
        The file.

    Raises:
        WriteError: the file cannot be written.
    """
    out = folder / PAGE_FILE if out is None else out
    write_at(place_of(out), page(facts, folder).encode())
    return out


def page(facts: Facts, folder: Path) -> str:
    """Return the text of the report; see `write_page` for the arguments."""
    found, made = facts.detection, facts.regenerated
    shown = found.shown[: SUREST + UNSUREST] if found else ()
    beside = found.beside[:BESIDE] if found else ()
    pairs = made.pairs[:PAIRS] if made else ()
    cards = _cards([*shown, *beside, *map(_of_pair, pairs)], facts, folder)
    split = SUREST if found and found.suspects > len(shown) else len(shown)
    drawn = _drawn(found.classes) if found else []
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            verdict=verdict(facts),
            surest=cards[:split],
            unsurest=cards[split : len(shown)],
            beside=cards[len(shown) : len(shown) + len(beside)],
            pairs=list(zip(pairs, cards[len(shown) + len(beside) :], strict=True)),
            hit=_hit(found.classes) if found else [],
            charts=[ClassChart(judged, histogram(judged), dial(judged)) for judged in drawn],
            untested=untested(facts),
            cost=_cost_rows(facts.cost),
            settings=_settings(facts),
            limit=_ROWS,
        )
    )


def environment() -> Environment:
    """Return a Jinja environment that escapes everything and raises on undefined names, which are bugs."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=words.shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "percent": words.percent,
        "probability": words.probability,
        "rate": words.rate_value,
        "interval": words.interval,
        "images": words.images,
        "number": words.number,
        "moment": words.moment,
        "time": seconds_text,
    }
    return made


def _of_pair(pair: Pair) -> Suspect:
    return Suspect(pair.key, pair.label, variation=pair.variation)


def _cards(images: Sequence[Suspect], facts: Facts, folder: Path) -> list[Card]:
    originals = Album.of_data(facts.folders.data.found(folder), (image.key for image in images))
    run, outputs = facts.folders.variations.found(folder), (image.variation for image in images if image.variation)
    variations = Album.of_run(run, outputs)
    return [
        Card(
            image,
            originals.thumbnail(image.key),
            variations.thumbnail(image.variation) if image.variation else "there is no variation",
        )
        for image in images
    ]


def _hit(classes: Sequence[ClassScores]) -> list[tuple[ClassScores, Thumbnail | None]]:
    """Return the classes with suspects, each with a picture of what its suspects have in common, if there is one."""
    hit = [judged for judged in classes if judged.suspects][:CLASSES]
    return [(judged, picture_of(judged.picture)) for judged in hit]


def _drawn(classes: Iterable[ClassScores]) -> list[ClassScores]:
    """Draw the classes: those with suspects first, then those that are nearest to their limit."""

    def place(judged: ClassScores) -> tuple[bool, float, str]:
        near = judged.separation / judged.limit if judged.separation is not None and judged.limit else 0.0
        return not judged.suspects, -near, judged.name

    return sorted(classes, key=place)[:CLASSES]


def _cost_rows(cost: Cost) -> list[CostRow]:
    rows = [
        CostRow(
            step.name,
            seconds_text(step.seconds),
            f"{step.images / step.seconds:,.1f}" if step.images and step.seconds > 0 else "",
            _price(cost, step.seconds),
            step.note,
        )
        for step in cost.steps
    ]
    total = sum(step.seconds for step in cost.steps)
    return [*rows, CostRow("all steps", seconds_text(total), "", _price(cost, total), "")] if rows else []


def _price(cost: Cost, seconds: float) -> str:
    if cost.price_per_hour is None:
        return ""
    return f"{cost.price_per_hour * seconds / 3600:,.2f} {cost.currency}".rstrip()


def _settings(facts: Facts) -> dict[str, list[tuple[str, str]]]:
    """Return section -> (name, value as text); empty values are left out."""
    return {
        section: [(name, _text(value)) for name, value in values.items() if value not in (None, "", {}, [])]
        for section, values in facts.settings.items()
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
