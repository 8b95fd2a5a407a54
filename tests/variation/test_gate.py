"""`variate --min-similarity` from end to end on a tiny model: what passes, what is made again, what is given up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffclean.data.journal import journal_path, read_journal
from diffclean.data.manifest import Status, read_run_manifest
from diffclean.data.merge import merge_manifests
from diffclean.data.run_record import read_run
from diffclean.data.shard import Shard
from diffclean.errors import ExitCode, Interrupted, UsageError
from diffclean.families.seeds import attempt_seed, image_seed
from diffclean.variation.estimate import estimate
from diffclean.variation.gate import RETRIES
from diffclean.variation.likeness import likeness_for
from diffclean.variation.settings import Settings, open_for
from diffclean.variation.variate import Concurrency, VariateResult, variate

KEYS = [f"{'cat' if number % 2 else 'dog'}/{number:02d}.png" for number in range(12)]
ONE = Concurrency(threads=1)
Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, draw_photos: Draw) -> Path:
    """Pictures of the size of the model's square, so that a variation is written as the sampler made it."""
    return draw_photos(tmp_path_factory.mktemp("gate") / "source", KEYS, width=16, height=16)


@pytest.fixture(scope="module")
def ungated(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=1, batch=3, detail=16, strength=0.1)


@pytest.fixture(scope="module")
def similarities(source: Path, ungated: Settings) -> dict[str, list[float]]:
    """Of every attempt at every image, one image at a time."""
    opened = open_for(ungated, threads=1)
    sampler, likeness = opened.sampler(), likeness_for(opened.engine, 1)
    found = {}
    for key in KEYS:
        square = np.asarray(Image.open(source / key).convert("RGB"))
        seeds = [attempt_seed(image_seed(0, key, 0), attempt) for attempt in range(RETRIES + 1)]
        made, _ = sampler.generate(torch.from_numpy(np.stack([square] * len(seeds))), seeds)
        found[key] = [likeness.compare([square], [each])[0] for each in made.numpy()]
    return found


@pytest.fixture(scope="module")
def gated(ungated: Settings, similarities: dict[str, list[float]]) -> Settings:
    """With a limit that some images reach at once, some at a later attempt, and some never."""
    ordered = sorted(max(each) for each in similarities.values())
    settings = replace(ungated, min_similarity=(ordered[3] + ordered[4]) / 2)
    kinds = [_first(each, settings) for each in similarities.values()]
    assert kinds.count(0) >= 2, kinds
    assert kinds.count(None) == 4, kinds
    assert kinds.count(1) + kinds.count(2) >= 1, kinds
    return settings


@pytest.fixture(scope="module")
def done(source: Path, gated: Settings, tmp_path_factory: pytest.TempPathFactory) -> VariateResult:
    return variate(source, tmp_path_factory.mktemp("gate") / "out", gated, concurrency=ONE)


def _first(similarities: list[float], settings: Settings) -> int | None:
    """The first attempt that passes."""
    least = settings.min_similarity
    assert least is not None
    return next((attempt for attempt, each in enumerate(similarities) if each >= least), None)


def images(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.png")}


def test_each_image_is_made_until_it_is_similar_enough(
    done: VariateResult, gated: Settings, similarities: dict[str, list[float]]
) -> None:
    rows = {row.key: row for row in read_run_manifest(done.out / "manifest.parquet")}
    assert list(rows) == sorted(KEYS), "one row for each image"
    for key, row in rows.items():
        attempt = _first(similarities[key], gated)
        if attempt is None:
            best = max(range(RETRIES + 1), key=similarities[key].__getitem__)
            assert (row.status, row.output, row.output_sha256) == (Status.FILTERED, "", "")
            assert row.seed == attempt_seed(image_seed(0, key, 0), best)
            assert f"a similarity of {math.floor(1000 * similarities[key][best]) / 1000:.3f} to its source" in row.error
        else:
            assert (row.status, row.error) == (Status.OK, "")
            assert row.seed == attempt_seed(image_seed(0, key, 0), attempt)
    assert set(images(done.out)) == {row.output for row in rows.values() if row.status is Status.OK}


def test_what_is_counted(done: VariateResult, gated: Settings, similarities: dict[str, list[float]]) -> None:
    first = [_first(each, gated) for each in similarities.values()]
    assert (done.total, done.made, done.filtered, done.failed) == (12, 8, 4, [])
    assert done.again == sum(RETRIES if attempt is None else attempt for attempt in first)
    assert done.windows == 12 + done.again
    assert done.exit_code is ExitCode.DONE, "what was asked for was done"
    assert done.for_json()["comparing_s"] > 0


def test_what_passes_at_once_has_the_bytes_of_a_run_without_a_gate(
    done: VariateResult, source: Path, ungated: Settings, gated: Settings, similarities: Any, tmp_path: Path
) -> None:
    plain = variate(source, tmp_path / "plain", ungated, concurrency=ONE)
    passed = [key.replace(".png", "_v00.png") for key in KEYS if _first(similarities[key], gated) == 0]
    ours, theirs = images(done.out), images(plain.out)
    assert {name: ours[name] for name in passed} == {name: theirs[name] for name in passed}
    assert "min_similarity" not in read_run(plain.out).identity, "runs of earlier versions can be resumed"
    assert (plain.filtered, plain.again, plain.comparing_s) == (0, 0, 0)


@pytest.mark.parametrize("how", ["another batch", "shards", "resumed"])
def test_the_same_images_pass_however_the_work_is_divided(
    done: VariateResult, source: Path, gated: Settings, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "out"
    if how == "another batch":
        variate(source, out, replace(gated, batch=5), concurrency=Concurrency(threads=1, workers=4))
    elif how == "shards":
        for index in (1, 2):
            variate(source, out, gated, shard=Shard(index, 2), concurrency=ONE)
        merge_manifests(out)
    else:
        with pytest.raises(Interrupted, match="left"):
            variate(source, out, gated, concurrency=ONE, stop=_After(4))
        assert 0 < len(read_journal(journal_path(out))) < len(KEYS)
        variate(source, out, gated, concurrency=ONE)
    assert images(out) == images(done.out)
    assert read_run_manifest(out / "manifest.parquet") == read_run_manifest(done.out / "manifest.parquet")


class _After(Event):
    """Set after it was asked so often; the pipeline asks before each image."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_what_was_filtered_is_not_tried_again_unless_its_original_is_replaced(
    done: VariateResult, source: Path, gated: Settings, draw_photos: Draw, tmp_path: Path
) -> None:
    mine, out = draw_photos(tmp_path / "source", KEYS, width=16, height=16), tmp_path / "out"
    variate(mine, out, gated, concurrency=ONE)
    again = variate(mine, out, gated, concurrency=ONE)
    assert (again.made, again.kept, again.filtered, again.windows) == (0, 8, 4, 0)
    given_up = next(row.key for row in read_run_manifest(out / "manifest.parquet") if row.status is Status.FILTERED)
    passed = next(row.key for row in read_run_manifest(out / "manifest.parquet") if row.status is Status.OK)
    (mine / given_up).write_bytes((mine / passed).read_bytes())
    replaced = variate(mine, out, gated, concurrency=ONE)
    assert replaced.made + replaced.filtered - 3 == 1
    assert "replaced" in replaced.changes[0]
    (mine / given_up).unlink()
    rest = variate(mine, out, gated, concurrency=ONE)
    assert given_up not in {row.key for row in read_run_manifest(out / "manifest.parquet")}
    assert rest.total == 11


def test_in_tars(done: VariateResult, source: Path, gated: Settings, tmp_path: Path) -> None:
    """A format that packs many images into a file holds those that pass, and is resumed."""
    packed = variate(source, tmp_path / "out", gated, concurrency=ONE, to="webdataset")
    assert (packed.made, packed.filtered) == (done.made, done.filtered)
    again = variate(source, tmp_path / "out", gated, concurrency=ONE, to="webdataset")
    assert (again.made, again.kept, again.filtered) == (0, done.made, done.filtered)


def test_in_a_bucket(done: VariateResult, source: Path, gated: Settings, bucket: Any) -> None:
    """The same images pass, those that are given up leave no object, and neither is tried again."""
    bucket.put({f"in/{key}": (source / key).read_bytes() for key in KEYS})
    there = variate(bucket / "in", bucket / "out", gated, concurrency=ONE)
    assert (there.made, there.filtered, there.again) == (done.made, done.filtered, done.again)
    objects = bucket.objects("out")
    assert {name: data for name, data in objects.items() if name.endswith(".png")} == images(done.out)
    assert objects["manifest.parquet"] == (done.out / "manifest.parquet").read_bytes()
    again = variate(bucket / "in", bucket / "out", gated, concurrency=ONE)
    assert (again.made, again.kept, again.filtered, again.windows) == (0, done.made, done.filtered, 0)


def test_a_dry_run_says_what_to_expect(source: Path, gated: Settings, tmp_path: Path) -> None:
    found = estimate(source, tmp_path / "none", replace(gated, batch=12), threads=1)
    least = gated.min_similarity
    assert least is not None
    assert len(found.similarities) == 12
    below = sum(each < least for each in found.similarities)
    assert found.windows == 12 + RETRIES * below
    assert "coarse" in found.measure
    assert estimate(source, tmp_path / "none", replace(gated, min_similarity=None), threads=1).similarities == []


@pytest.mark.parametrize("least", [0.0, 1.5, float("nan")])
def test_a_similarity_that_no_picture_can_have(source: Path, gated: Settings, tmp_path: Path, least: float) -> None:
    with pytest.raises(UsageError, match="`min_similarity`"):
        variate(source, tmp_path / "out", replace(gated, min_similarity=least))
