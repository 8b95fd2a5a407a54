"""Pictures are found whatever format the originals and the variations are in."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import picture

from diffclean.data.convert import convert
from diffclean.data.manifest import manifest_name, read_run_manifest
from diffclean.data.registry import FOLDER, FORMATS, open_source
from diffclean.data.suspects import JudgedImage, SuspectList
from diffclean.report.pictures import Album, Thumbnail
from diffclean.report.review import Pictures, places_of
from diffclean.report.reviewed_list import ReviewedList
from diffclean.report.write import write_report
from diffclean.variation.settings import Settings
from diffclean.variation.variate import Concurrency, variate


@pytest.mark.parametrize("name", [name for name in FORMATS if name != FOLDER])
def test_originals_and_variations_are_shown(name: str, tiny_model: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "folder" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    convert(str(tmp_path / "folder"), tmp_path / "data", name)
    settings = Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=4, detail=16)
    variate(tmp_path / "data", tmp_path / "out", settings, concurrency=Concurrency(threads=1))
    keys = [item.key for item in open_source(tmp_path / "data").items()]
    outputs = [row.output for row in read_run_manifest(tmp_path / "out" / manifest_name())]
    assert all(isinstance(Album.of_data(str(tmp_path / "data"), keys).thumbnail(key), Thumbnail) for key in keys)
    album = Album.of_run(str(tmp_path / "out"), outputs[:3])
    assert all(isinstance(album.thumbnail(output), Thumbnail) for output in outputs[:3])
    assert album.thumbnail(outputs[3]) == "it is not in the data set", "what was not asked for is not remembered"
    assert write_report(tmp_path / "out").page.read_text().count("data:image/webp") == 8

    images = [JudgedImage(key, "a", 1.0, 0.9, True) for key in keys]
    SuspectList("given", str(tmp_path / "data"), "", [], images, {}).write(tmp_path / "suspects.json")
    places = places_of(tmp_path / "suspects.json", variations=tmp_path / "out")
    listed = ReviewedList(places.list)
    shown = Pictures(places, listed)
    assert all(isinstance(shown.get(kind, 3), Thumbnail) for kind in ("original", "variation"))
    listed.close()


def test_a_list_finds_a_pattern_of_tars(tmp_path: Path) -> None:
    (tmp_path / "folder" / "a").mkdir(parents=True)
    (tmp_path / "folder" / "a" / "1.png").write_bytes(picture(1))
    convert(str(tmp_path / "folder"), tmp_path / "tars", "webdataset")
    pattern = str(tmp_path / "tars" / "data-*.tar")
    SuspectList("given", pattern, "", [], [JudgedImage("x", "a", 1.0, 0.9, True)], {}).write(tmp_path / "list.json")
    assert places_of(tmp_path / "list.json").data == pattern
