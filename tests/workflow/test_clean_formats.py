"""The whole job, and its parts that touch images, on data that do not lie in a folder of files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.api.clean import clean_config
from diffclean.data.convert import convert
from diffclean.data.registry import FOLDER, FORMATS, open_source
from diffclean.errors import DiffcleanError
from diffclean.report.facts import read_facts
from diffclean.workflow.chain_config import Chain
from diffclean.workflow.clean import clean
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.cleaned import write_cleaned
from diffclean.workflow.prepare import prepare
from diffclean.workflow.self_test import draw
from diffclean.workflow.steps import Distilling, Hands, Teaching

PACKED = [name for name in FORMATS if name != FOLDER]
LABELS = {"lying", "standing", "square"}


@pytest.mark.slow
def test_a_pattern_of_tars_is_cleaned_with_a_parquet_folder_as_test_set(
    config: CleanConfig, shapes: tuple[Path, Path], tmp_path: Path
) -> None:
    convert(str(shapes[0]), tmp_path / "tars", "webdataset")
    convert(str(shapes[1]), tmp_path / "test", "parquet")
    config = replace(config, data=tmp_path / "tars" / "data-{000000..000000}.tar", test=tmp_path / "test")
    done = clean(prepare(config, Hands()), Hands())
    assert done.student is not None
    assert done.suspects is not None
    keys = {item.key for item in open_source(config.data).items()}
    assert done.suspects.keys < keys
    assert done.suspects.keys
    with (config.out / "cleaned.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["original"] for row in rows} == keys - done.suspects.keys
    assert {item.key: item.label for item in open_source(config.out / "cleaned").items()} == {
        row["file"]: row["label"] for row in rows
    }
    facts = read_facts(config.out)
    assert facts.outcome is not None
    assert facts.outcome.after.clean_accuracy is not None
    assert facts.name == "data"
    shown = facts.detection
    assert shown is not None
    pictures = done.report.read_text().count("data:image/webp")
    assert pictures >= 2 * (len(shown.shown) + len(shown.beside)), "originals and variations are found"

    run = config.out / "work" / "variations" / "run.json"
    record = json.loads(run.read_text())
    record["identity"]["engine"] = "tiny/another"
    run.write_text(json.dumps(record))
    with pytest.raises(DiffcleanError, match="engine: ") as raised:
        clean(prepare(config, Hands()), Hands())
    assert "`from_step` variations" in raised.value.hint
    assert clean(prepare(replace(config, from_step="variations"), Hands()), Hands()).student is not None


@pytest.mark.parametrize("name", PACKED)
def test_what_is_kept_becomes_a_folder_of_classes(shapes: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    convert(str(shapes[1]), tmp_path / "data", name)
    source = open_source(tmp_path / "data")
    suspect, *others = [item.key for item in source.items()]
    listing = tmp_path / "cleaned.csv"
    count = write_cleaned(tmp_path / "data", tmp_path / "cleaned", listing, {suspect}, None, Hands())
    cleaned = open_source(tmp_path / "cleaned").items()
    assert count == len(cleaned) == len(others)
    assert {item.label for item in cleaned} == LABELS
    with listing.open(newline="") as file:
        assert [row["original"] for row in csv.DictReader(file)] == others


@pytest.mark.parametrize("name", PACKED)
def test_the_self_test_draws_its_sample_from_it(
    shapes: tuple[Path, Path], tiny_archs: None, tmp_path: Path, name: str
) -> None:
    convert(str(shapes[1]), tmp_path / "data", name)
    chain = Chain(tmp_path / "data", Teaching("tiny"), Distilling("tiny"), None, digest="the shapes")
    sample = draw(chain, frozenset(), 30, tmp_path / "work")
    for folder in (sample.train, sample.test):
        assert {item.label for item in open_source(folder).items()} == LABELS
    assert sample.images == len(open_source(sample.train).items()) == 24


def test_the_folder_of_the_job_is_called_after_the_files(tmp_path: Path) -> None:
    def out(data: str) -> str:
        return clean_config(tmp_path / data, None, None, None).out.name

    assert out("x-{0000..0099}.tar") == "x-clean"
    assert out("photos.parquet") == "photos-clean"


def test_tars_without_labels_are_refused_in_words_that_fit(tmp_path: Path, draw_photos: object) -> None:
    assert callable(draw_photos)
    draw_photos(tmp_path / "flat", ["1.png", "2.png"])
    convert(str(tmp_path / "flat"), tmp_path / "data", "webdataset")
    with pytest.raises(DiffcleanError, match="have no labels"):
        prepare(CleanConfig(data=tmp_path / "data", out=tmp_path / "job"), Hands())
