"""The data card, read by the library of those who made the format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from clean_run import clean_run, draw

from diffclean.report.card import CARD_FILE, write_card
from diffclean.report.facts import Facts, read_facts

ROWS = [
    ("crossing/1_v00.png", "crossing/1.jpg", "crossing"),
    ("stop/2_v00.png", "stop/2.png", "stop"),
    ("stop/deep/3_v00.webp", "stop/deep/3.png", "stop"),
]


def cleaned(tmp_path: Path, variations: bool = True) -> Path:
    folder = clean_run(tmp_path)
    with (folder / "cleaned.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "original", "label"), *ROWS])
    for file_name, _, _ in ROWS:
        draw(folder / "cleaned", file_name, 32)
    write_card(folder, read_facts(folder), variations)
    return folder


def test_mlcroissant_finds_nothing_wrong_and_reads_the_images_by_the_card(tmp_path: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    folder = cleaned(tmp_path)
    data = croissant.Dataset(jsonld=str(folder / CARD_FILE))
    assert data.metadata.ctx.issues.errors == set()
    found = {
        record["images/file"].decode(): (record["images/label"].decode(), record["images/content"].size)
        for record in data.records("images")
    }
    assert found == {file: (label, (32, 32)) for file, _, label in ROWS}
    rows = [
        tuple(record[f"origins/{name}"].decode() for name in ("file", "original", "label"))
        for record in data.records("origins")
    ]
    assert rows == ROWS


def test_the_card_says_what_was_made_from_what_by_which_engine(tmp_path: Path) -> None:
    card = json.loads((cleaned(tmp_path) / CARD_FILE).read_text())
    assert card["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert card["prov:wasDerivedFrom"]["@id"] == "suspect-data"
    images = card["distribution"][1]
    assert images["prov:wasDerivedFrom"] == {"@id": "suspect-data"}
    engine = images["prov:wasGeneratedBy"]["prov:used"][1]
    assert (engine["prov:label"], engine["sc:identifier"]) == ("micro", "3f" * 32)
    assert "were left out" in card["rai:dataPreprocessingProtocol"][0]
    assert any("labels of suspect data are suspect" in sentence for sentence in card["rai:dataLimitations"])
    assert "license" not in card


def test_originals_are_not_said_to_be_generated(tmp_path: Path) -> None:
    card = json.loads((cleaned(tmp_path, variations=False) / CARD_FILE).read_text())
    assert "prov:wasGeneratedBy" not in card["distribution"][1]
    assert card["prov:wasGeneratedBy"]["@id"] == "clean"


def test_a_run_of_which_little_is_known_has_a_card_too(tmp_path: Path) -> None:
    (tmp_path / "cleaned.csv").write_text("file,original,label\n")
    write_card(tmp_path, Facts("<b>photos"), variations=False)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    assert card["name"] == "<b>photos, cleaned"
    assert card["distribution"][1]["includes"] == ["cleaned/**/*"]
