"""The whole job on data that lie in a bucket; the job itself lies on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from bucket_server import Bucket
from data_sets import files_below

from diffclean.api.clean import clean_config
from diffclean.data.convert import convert
from diffclean.report.facts import read_facts
from diffclean.workflow.clean import clean
from diffclean.workflow.prepare import prepare
from diffclean.workflow.steps import Hands


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tars", "folder"])
def test_what_lies_in_a_bucket_is_cleaned_with_a_test_set_in_it(
    form: str,
    bucket: Bucket,
    shapes: tuple[Path, Path],
    tiny_archs: None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if form == "tars":
        convert(str(shapes[0]), Path(bucket / form), "webdataset")
    else:
        bucket.put({f"{form}/{key}": data for key, data in files_below(shapes[0]).items()})
    bucket.put({f"test/{key}": data for key, data in files_below(shapes[1]).items()})
    how = {"arch": "tiny", "epochs": 1, "engine": str(tiny_model), "variations": 1, "detector": "spectral"}
    config = clean_config(
        bucket / form, None, None, None, test=bucket / "test", self_test=False, cleaned="originals", **how
    )
    assert config.out == Path(f"{form}-clean")
    done = clean(prepare(config, Hands()), Hands())
    assert done.suspects is not None
    facts = read_facts(config.out)
    assert facts.folders.data.path == bucket / form
    assert facts.outcome is not None
    assert facts.outcome.after.clean_accuracy is not None
    assert done.report.read_text().count("data:image/webp") >= 2
    assert len(list((config.out / "cleaned").rglob("*.png"))) + done.suspects.suspects == 60 * 3
    assert not (tmp_path / "s3:").exists()
