"""What is told of a folder of variations."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffclean.data.manifest import Row, Status, write_manifest
from diffclean.data.run_record import RunRecord, open_run
from diffclean.errors import DiffcleanError
from diffclean.report.variation_run import PAIRS, facts_of_run, variations_of

ENGINE = {"engine_fingerprint": "ab" * 32, "license": "for research", "runtime": "openvino", "diffclean": "0.1.0"}


def run(out: Path, rows: list[Row]) -> Path:
    out.mkdir()
    open_run(out, RunRecord({"engine": "x", "strength": 0.2}, {"a": 0, "b": 1}, ENGINE, source=str(out)))
    write_manifest(out, rows, class_to_idx={"a": 0, "b": 1})
    return out


def test_images_are_counted_by_their_last_attempt(tmp_path: Path) -> None:
    rows = [Row(f"a/{number:03}.png", 0, f"a/{number:03}_v00.png", "a", source_sha256="1") for number in range(100)]
    rows += [Row("a/000.png", 1, "a/000_v01.png", "a", source_sha256="1")]
    rows += [Row("b/1.png", 0, "", "b", Status.FAILED, "truncated file")]
    rows += [Row("b/2.png", 0, "", "b", Status.FAILED, "not finite", source_sha256="1")]
    rows += [Row("b/2.png", 0, "b/2_v00.png", "b", source_sha256="1")]
    out = run(tmp_path / "out", rows)
    facts = facts_of_run(out)
    made = facts.regenerated
    assert made is not None
    assert (made.images, made.failed, made.reasons) == (101, 1, {"b/1.png": "truncated file"})
    assert facts.counts.classes == {"a": 100, "b": 2}
    assert facts.counts.unreadable == 1
    assert len({pair.key for pair in made.pairs}) == PAIRS
    assert facts.engine.licence == "for research"
    assert facts.settings["variate"]["strength"] == 0.2
    assert variations_of(out, ["a/000.png", "b/1.png", "b/2.png"]) == {
        "a/000.png": "a/000_v00.png",
        "b/2.png": "b/2_v00.png",
    }


def test_a_run_that_has_not_ended_says_how_to_go_on(tmp_path: Path) -> None:
    out = run(tmp_path / "out", [])
    (out / "manifest.parquet").unlink()
    with pytest.raises(DiffcleanError, match="has not ended"):
        facts_of_run(out)
