"""`variate` from end to end on a tiny model: what is written, and that nothing but the settings decides it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffclean.data.encode import ImageFormat
from diffclean.data.fit import Fit, OutputSize, to_square
from diffclean.data.journal import journal_path, read_journal
from diffclean.data.manifest import Row, Status, read_manifest_classes, read_run_manifest
from diffclean.data.merge import merge_manifests
from diffclean.data.shard import Shard
from diffclean.engine.manifest import read_engine_manifest
from diffclean.errors import DiffcleanError, ExitCode, Interrupted, UsageError
from diffclean.families.seeds import image_seed
from diffclean.variation.color import ColorTransfer
from diffclean.variation.estimate import estimate
from diffclean.variation.settings import Settings, open_for
from diffclean.variation.variate import Concurrency, VariateResult, variate

KEYS = ["cat/a.png", "cat/b.jpg", "cat/deep/c.png", "dog/d.png", "dog/e f.webp", "eel/g.png", "eel/h.bmp"]
Run = Callable[..., VariateResult]
Draw = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    return draw_photos(tmp_path / "source", KEYS)


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    """Quick ones, one window a picture. Asking for the engine's fixture sees to it that it is exported only once."""
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=2, batch=3, detail=16)


@pytest.fixture
def run(settings: Settings) -> Run:
    def go(source: Path, out: Path, **options: Any) -> VariateResult:
        named = {name: options.pop(name) for name in ("shard", "stop", "progress") if name in options}
        concurrency = Concurrency(workers=options.pop("workers", None), threads=1)
        return variate(source, out, replace(settings, **options), concurrency=concurrency, **named)

    return go


def images(out: Path) -> dict[str, bytes]:
    """Every file of OUT that is an image, by its relative path."""
    found = (path for path in out.rglob("*") if path.is_file() and path.suffix in (".png", ".webp", ".jpg"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


class StopAfter(threading.Event):
    """Set once it was asked `jobs` times; the pipeline asks before each image."""

    def __init__(self, jobs: int) -> None:
        super().__init__()
        self.left = jobs

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


class Counting:
    """A progress that counts, and can do something at the first news."""

    def __init__(self, at_first: Callable[[], None] | None = None) -> None:
        self.begun: list[tuple[int | None, int]] = []
        self.count = 0
        self.ended = 0
        self.at_first = at_first

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        if what == "variate":
            self.begun.append((total, done))

    def advance(self, count: int = 1, **figures: float) -> None:
        first, self.count = self.count == 0, self.count + count
        if first and self.at_first is not None:
            self.at_first()

    def end(self) -> None:
        self.ended += 1


def test_what_is_written(run: Run, source: Path, tmp_path: Path, settings: Settings, tiny_engine: Path) -> None:
    out, progress = tmp_path / "out", Counting()
    report = run(source, out, progress=progress)
    assert (report.total, report.made, report.kept, report.failed) == (7, 7, 0, [])
    assert report.exit_code is ExitCode.DONE
    assert (progress.begun, progress.count) == ([(7, 0)], 7)
    assert progress.ended
    names = {key: str(Path(key).with_suffix("")) + "_v00.png" for key in KEYS}
    assert set(images(out)) == set(names.values())
    rows = read_run_manifest(out / "manifest.parquet")
    assert [row.key for row in rows] == sorted(KEYS)
    for row in rows:
        path = out / row.output
        data = (source / row.key).read_bytes()
        assert row == Row(
            key=row.key,
            output=names[row.key],
            label=row.key.split("/")[0],
            source_label=row.key.split("/")[0],
            seed=image_seed(0, row.key, 0),
            source_sha256=hashlib.sha256(data).hexdigest(),
            output_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            width=20,
            height=16,
            source_width=20,
            source_height=16,
            engine=read_engine_manifest(tiny_engine).fingerprint,
        )
        assert pixels(path).shape == (16, 20, 3)
    assert len({row.output_sha256 for row in rows}) == 7
    assert read_manifest_classes(out / "manifest.parquet") == {"cat": 0, "dog": 1, "eel": 2}
    record = json.loads((out / "run.json").read_text())
    assert record["identity"]["engine"] == report.engine == f"{rows[0].engine[:16]}/onnxruntime/fp32"
    assert record["identity"]["steps"] == 2
    assert record["other"]["engine_fingerprint"] == rows[0].engine
    visible = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    assert visible == {"cat", "dog", "eel", "run.json", "manifest.parquet", "journal.jsonl"}


def test_the_outcome_is_what_the_sampler_makes(run: Run, source: Path, tmp_path: Path, settings: Settings) -> None:
    """The file holds the pixels of its own image, made with its own seed: nothing is swapped on the way."""
    import torch

    run(source, tmp_path / "out", size=OutputSize(native=True), seed=5)
    sampler = open_for(settings, threads=1).sampler()
    for key in KEYS:
        square = np.asarray(Image.open(source / key).convert("RGB").resize((16, 16), Image.Resampling.LANCZOS))
        batch = torch.from_numpy(np.stack([square] * 3))
        made, _ = sampler.generate(batch, [image_seed(5, key, 0)] * 3)
        found = pixels(tmp_path / "out" / (str(Path(key).with_suffix("")) + "_v00.png"))
        assert (found == made[0].numpy()).all(), key


def test_small_images_are_seen_through_cells_of_their_own_pixels(
    coarse_model: Path, tmp_path: Path, draw_photos: Draw
) -> None:
    """Images of several sizes in one batch: each has its own cells, and the padding of a batch has none that matter."""
    import torch

    source = draw_photos(tmp_path / "source", ["small/a.png"], 5, 7)
    draw_photos(source, ["large/b.png"], 40, 30)
    settings = Settings(engine=str(coarse_model), runtime="onnxruntime", steps=2, strength=0.5, batch=3, detail=16)
    settings = replace(settings, size=OutputSize(native=True))
    variate(source, tmp_path / "out", settings, concurrency=Concurrency(threads=1))
    sampler = open_for(settings, threads=1).sampler()
    for key, own in (("small/a.png", (7, 5)), ("large/b.png", (16, 16))):
        square, _ = to_square(pixels(source / key), 16, Fit.SQUASH)
        batch, seeds = torch.from_numpy(np.stack([square] * 3)), [image_seed(0, key, 0)] * 3
        made, _ = sampler.generate(batch, seeds, [own] * 3)
        found = pixels(tmp_path / "out" / key.replace(".png", "_v00.png"))
        assert (found == made[0].numpy()).all(), key
        as_large, _ = sampler.generate(batch, seeds)
        assert (found == as_large[0].numpy()).all() == (own == (16, 16))


def test_torchvision_reads_the_outcome(run: Run, source: Path, tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    run(source, tmp_path / "out")
    data = ImageFolder(tmp_path / "out")
    assert data.class_to_idx == read_manifest_classes(tmp_path / "out/manifest.parquet")
    assert len(data) == 7
    assert data[0][0].size == (20, 16)


def test_a_flat_folder_has_no_labels(run: Run, tmp_path: Path, draw_photos: Draw) -> None:
    source = draw_photos(tmp_path / "flat", ["a.png", "b.png"])
    assert run(source, tmp_path / "out").made == 2
    assert set(images(tmp_path / "out")) == {"a_v00.png", "b_v00.png"}
    assert read_manifest_classes(tmp_path / "out/manifest.parquet") == {}


def test_names_that_are_not_text(run: Run, tmp_path: Path, draw_photos: Draw) -> None:
    source = draw_photos(tmp_path / "odd", ["x/50%.png"])
    (source / "x/50%.png").rename(os.fsdecode(os.fsencode(source) + b"/x/caf\xe9\n.png"))
    draw_photos(source, ["x/50%.png"])
    assert run(source, tmp_path / "out").made == 2
    names = {os.fsencode(path.name) for path in (tmp_path / "out/x").iterdir()}
    assert names == {b"caf\xe9\n_v00.png", b"50%_v00.png"}
    assert [row.key for row in read_run_manifest(tmp_path / "out/manifest.parquet")] == [
        "x/50%25.png",
        "x/caf%E9%0A.png",
    ]
    assert run(source, tmp_path / "out").kept == 2


# Nothing but the settings decides the bytes.


@pytest.fixture
def undisturbed(run: Run, source: Path, tmp_path: Path) -> Path:
    run(source, tmp_path / "undisturbed")
    return tmp_path / "undisturbed"


def same(first: Path, second: Path) -> bool:
    return images(first) == images(second) and len(images(first)) > 0


@pytest.mark.parametrize("workers", [1, 4])
def test_workers(run: Run, source: Path, tmp_path: Path, undisturbed: Path, workers: int) -> None:
    run(source, tmp_path / "out", workers=workers)
    assert same(tmp_path / "out", undisturbed)
    manifest = (tmp_path / "out/manifest.parquet").read_bytes()
    assert manifest == (undisturbed / "manifest.parquet").read_bytes()


def test_order_on_disk(run: Run, tmp_path: Path, undisturbed: Path, draw_photos: Draw) -> None:
    for attempt in range(2):
        keys = random.Random(attempt).sample(KEYS, len(KEYS))
        run(draw_photos(tmp_path / f"source-{attempt}", keys), tmp_path / f"out-{attempt}")
        assert same(tmp_path / f"out-{attempt}", undisturbed)


def test_other_images_make_no_difference(run: Run, tmp_path: Path, undisturbed: Path, draw_photos: Draw) -> None:
    """Two of the seven: other company in the batch, another place in it."""
    run(draw_photos(tmp_path / "few", ["dog/d.png", "eel/h.bmp"]), tmp_path / "out")
    everything = images(undisturbed)
    assert images(tmp_path / "out") == {name: everything[name] for name in ("dog/d_v00.png", "eel/h_v00.png")}


@pytest.mark.parametrize(("runtime", "after"), [("onnxruntime", range(7)), ("auto", [2])])
def test_an_interruption_anywhere(run: Run, source: Path, tmp_path: Path, runtime: str, after: Sequence[int]) -> None:
    """After every image: resumed, the outcome is that of a run that nobody disturbed, to the byte."""
    run(source, tmp_path / "undisturbed", runtime=runtime)
    for jobs in after:
        out, progress = tmp_path / f"out-{jobs}", Counting()
        with pytest.raises(Interrupted, match=f"{jobs} of 7 variations are in .*, {7 - jobs} are left"):
            run(source, out, runtime=runtime, stop=StopAfter(jobs))
        assert len(images(out)) == len(read_journal(journal_path(out))) == jobs
        assert not (out / "manifest.parquet").exists()
        report = run(source, out, runtime=runtime, progress=progress)
        assert (report.made, report.kept, progress.begun) == (7 - jobs, jobs, [(7, jobs)])
        assert same(out, tmp_path / "undisturbed")
        assert (out / "manifest.parquet").read_bytes() == (tmp_path / "undisturbed/manifest.parquet").read_bytes()


def test_interrupted_many_times(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    for _ in range(6):
        with pytest.raises(Interrupted):
            run(source, tmp_path / "out", stop=StopAfter(1))
    run(source, tmp_path / "out")
    assert same(tmp_path / "out", undisturbed)


def test_stopped_after_the_last_image_is_finished(run: Run, source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out", stop=StopAfter(7))
    assert report.made == 7
    assert (tmp_path / "out/manifest.parquet").exists()


def test_a_finished_run_does_nothing_again(run: Run, source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*_v*")}
    report = run(source, tmp_path / "out")
    assert (report.made, report.kept) == (0, 7)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*_v*")} == before
    assert len(read_journal(journal_path(tmp_path / "out"))) == 7


def test_what_was_deleted_is_made_again(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    (out / "dog/d_v00.png").unlink()
    assert run(source, out).made == 1
    assert same(out, undisturbed)


def test_what_was_added_is_made(run: Run, source: Path, tmp_path: Path, draw_photos: Draw) -> None:
    run(source, tmp_path / "out")
    draw_photos(source, ["dog/new.png"])
    report = run(source, tmp_path / "out")
    assert (report.total, report.made, report.kept) == (8, 1, 7)


@pytest.mark.parametrize("together", [True, False])
def test_shards(run: Run, source: Path, tmp_path: Path, undisturbed: Path, together: bool) -> None:
    outs = [tmp_path / ("out" if together else f"out-{index}") for index in (1, 2, 3)]
    reports = [run(source, out, shard=Shard(index, 3)) for index, out in enumerate(outs, start=1)]
    assert sum(report.made for report in reports) == 7
    manifest = merge_manifests(outs[:1] if together else outs)
    assert same(outs[0], undisturbed)
    assert read_run_manifest(manifest) == read_run_manifest(undisturbed / "manifest.parquet")
    again = run(source, outs[0])
    assert (again.made, again.kept) == (0, 7)


def test_a_shard_without_images_is_finished_too(run: Run, tmp_path: Path, draw_photos: Draw) -> None:
    """More shards than images is no reason why the others could never be joined."""
    source = draw_photos(tmp_path / "two", ["a.png", "b.png"])
    reports = [run(source, tmp_path / "out", shard=Shard(index, 4)) for index in range(1, 5)]
    assert 0 in [report.total for report in reports]
    assert len(read_run_manifest(merge_manifests(tmp_path / "out"))) == 2


def test_an_interrupted_shard_is_not_taken_for_finished(run: Run, source: Path, tmp_path: Path) -> None:
    sizes = {index: sum(Shard(index, 2).takes(key) for key in KEYS) for index in (1, 2)}
    assert min(sizes.values()) > 1
    run(source, tmp_path / "out", shard=Shard(1, 2))
    with pytest.raises(Interrupted):
        run(source, tmp_path / "out", shard=Shard(2, 2), stop=StopAfter(1))
    with pytest.raises(DiffcleanError, match="2-of-2 has not finished"):
        merge_manifests(tmp_path / "out")
    run(source, tmp_path / "out", shard=Shard(2, 2))
    assert len(read_run_manifest(merge_manifests(tmp_path / "out"))) == 7


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_batch_sizes_stay_within_one_grey_level(
    run: Run, source: Path, tmp_path: Path, undisturbed: Path, batch: int
) -> None:
    run(source, tmp_path / "out", batch=batch)
    for name in images(undisturbed):
        difference = pixels(tmp_path / "out" / name).astype(int) - pixels(undisturbed / name)
        assert np.abs(difference).max() <= 1


def test_runtimes_agree_in_fp32(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    for runtime in ("openvino", "torch"):
        run(source, tmp_path / runtime, runtime=runtime, precision="fp32")
        for name in images(undisturbed):
            difference = pixels(tmp_path / runtime / name).astype(int) - pixels(undisturbed / name)
            assert np.abs(difference).max() <= 1, (runtime, name)


def test_an_engine_directory_is_as_good_as_its_model(
    run: Run, source: Path, tmp_path: Path, undisturbed: Path, tiny_engine: Path
) -> None:
    report = run(source, tmp_path / "out", engine=str(tiny_engine))
    assert same(tmp_path / "out", undisturbed)
    assert run(source, undisturbed, engine=str(tiny_engine)).kept == 7  # it is the same run
    assert report.engine.startswith(read_engine_manifest(tiny_engine).fingerprint[:16])


# Settings.


def test_every_setting_of_the_sampler_matters(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    changes: list[dict[str, Any]] = [
        {"steps": 3},
        {"strength": 0.9},
        {"guidance": 2.0},
        {"scheduler": "euler"},
        {"seed": 1},
    ]
    seen = {hashlib.sha256(images(undisturbed)["dog/d_v00.png"]).hexdigest()}
    for number, change in enumerate(changes):
        run(source, tmp_path / f"out-{number}", **change)
        seen.add(hashlib.sha256(images(tmp_path / f"out-{number}")["dog/d_v00.png"]).hexdigest())
    assert len(seen) == 6


def test_several_variations(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "out"
    report = run(source, out, variations=3)
    assert report.made == report.total == 21
    assert {name for name in images(out) if name.startswith("dog/d")} == {f"dog/d_v{n:02d}.png" for n in range(3)}
    assert len(set(images(out).values())) == 21
    assert images(out).items() >= images(undisturbed).items()  # the first is the same as when it is the only one
    rows = read_run_manifest(out / "manifest.parquet")
    assert [(row.key, row.variant) for row in rows] == [(key, n) for key in sorted(KEYS) for n in range(3)]
    assert all(row.seed == image_seed(0, row.key, row.variant) for row in rows)
    (out / "dog/d_v01.png").unlink()
    report = run(source, out, variations=3)
    assert (report.made, report.kept) == (1, 20)


def test_several_variations_interrupted(run: Run, source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "undisturbed", variations=3)
    with pytest.raises(Interrupted):
        run(source, tmp_path / "out", variations=3, stop=StopAfter(2))
    assert run(source, tmp_path / "out", variations=3).kept == 6
    assert same(tmp_path / "out", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        (Fit.SQUASH, "source", (20, 12)),
        (Fit.CROP, "source", (12, 12)),
        (Fit.PAD, "source", (20, 12)),
        (Fit.SQUASH, "native", (16, 16)),
        (Fit.CROP, "native", (16, 16)),
        (Fit.PAD, "native", (16, 16)),
        (Fit.SQUASH, "10", (10, 6)),
        (Fit.CROP, "10", (10, 10)),
        (Fit.PAD, "40", (40, 24)),
    ],
)
def test_sizes_and_fits(
    run: Run, tmp_path: Path, draw_photos: Draw, fit: Fit, size: str, expected: tuple[int, int]
) -> None:
    source = draw_photos(tmp_path / "source", ["a.png"], width=20, height=12)
    run(source, tmp_path / "out", fit=fit, size=OutputSize.parse(size))
    assert Image.open(tmp_path / "out/a_v00.png").size == expected
    (row,) = read_run_manifest(tmp_path / "out/manifest.parquet")
    assert (row.width, row.height, row.source_width, row.source_height) == (*expected, 20, 12)


@pytest.mark.parametrize("format", list(ImageFormat))
def test_formats(run: Run, source: Path, tmp_path: Path, undisturbed: Path, format: ImageFormat) -> None:
    run(source, tmp_path / "out", format=format)
    path = tmp_path / f"out/dog/d_v00.{format.extension}"
    with Image.open(path) as image:
        assert image.format == format.name
    difference = np.abs(pixels(path).astype(int) - pixels(undisturbed / "dog/d_v00.png"))
    assert difference.max() <= (0 if format is not ImageFormat.JPEG else 40)


def test_colours_of_the_source(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    run(source, tmp_path / "out", color_transfer=ColorTransfer.MEAN_STD)

    def mean(path: Path) -> np.ndarray:
        return pixels(path).mean(axis=(0, 1))

    for name in ("cat/a", "dog/d", "eel/g"):
        wanted = mean(source / f"{name}.png")
        assert np.abs(mean(undisturbed / f"{name}_v00.png") - wanted).max() > 25
        assert np.abs(mean(tmp_path / f"out/{name}_v00.png") - wanted).max() < 10  # what is clipped is lost


def test_all_mistakes_are_told_together_and_at_once(
    run: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a million names are tried for collisions, and before an engine is exported."""
    monkeypatch.setenv("DIFFCLEAN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError) as raised:
        run(
            source,
            tmp_path / "out",
            steps=0,
            strength=float("nan"),
            guidance=-1.0,
            scheduler="heun",
            variations=10**12,
            seed=-1,
            batch=0,
            pixel_limit=0,
        )
    for name in ("steps", "strength", "guidance", "scheduler", "variations", "seed", "batch", "pixel_limit"):
        assert f"`{name}` " in raised.value.message
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0.0},
        {"strength": 1.01},
        {"steps": 1001},
        {"guidance": float("inf")},
        {"variations": 0},
        {"seed": 2**63},
        {"batch": 5000},
    ],
)
def test_the_ends_of_ranges(run: Run, source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"Out of range: `{next(iter(options))}` "):
        run(source, tmp_path / "out", **options)


def test_an_unknown_engine_lists_the_known(run: Run, source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no engine 'vega'(.|\n)*micro"):
        run(source, tmp_path / "out", engine="vega")
    assert not (tmp_path / "out").exists()


# Folders.


def test_another_configuration_is_refused(run: Run, source: Path, tmp_path: Path, undisturbed: Path) -> None:
    before = images(undisturbed)
    with pytest.raises(DiffcleanError) as raised:
        run(source, undisturbed, strength=0.9, seed=3, runtime="torch")
    for line in ("there, 0.9 asked for", "seed: 0 there, 3 asked for", "engine: "):
        assert line in raised.value.message
    assert "steps" not in raised.value.message
    assert images(undisturbed) == before


def test_another_source_is_refused(run: Run, tmp_path: Path, undisturbed: Path, draw_photos: Draw) -> None:
    """A mistyped folder must not cost all variations, whether its images have other names or the same."""
    before = images(undisturbed)
    other = draw_photos(tmp_path / "other", ["cat/x.png"])
    shutil.copy(other / "cat/x.png", other / "cat/a.png")
    (other / "cat/x.png").unlink()
    for source in (other, draw_photos(tmp_path / "third", ["ant/a.png"])):
        with pytest.raises(DiffcleanError, match=f"none of its 7 images is in .*{source.name}"):
            run(source, undisturbed)
    assert images(undisturbed) == before


def test_two_runs_on_one_folder(run: Run, source: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            run(source, tmp_path / "out")
        except DiffcleanError as error:
            refused.append(error.message)

    assert run(source, tmp_path / "out", progress=Counting(at_first=second)).made == 7
    assert len(refused) == 1
    assert f"is being written by process {os.getpid()}" in refused[0]
    assert len(read_journal(journal_path(tmp_path / "out"))) == 7


@pytest.mark.parametrize("inside", ["out", "cat/out", "."])
def test_an_output_inside_the_source(run: Run, source: Path, inside: str) -> None:
    before = sorted(source.rglob("*"))
    with pytest.raises(DiffcleanError, match=r"inside the source|is the source itself"):
        run(source, source / inside)
    assert sorted(source.rglob("*")) == before


def test_a_source_inside_the_output(run: Run, source: Path) -> None:
    with pytest.raises(DiffcleanError, match="lies inside the output"):
        run(source, source.parent)


def test_names_that_collide(run: Run, source: Path, tmp_path: Path, draw_photos: Draw) -> None:
    draw_photos(source, ["dog/d.jpg"])
    with pytest.raises(DiffcleanError, match=r"dog/d.jpg and dog/d.png would both become dog/d_v00.png"):
        run(source, tmp_path / "out", shard=Shard(1, 2))
    assert not (tmp_path / "out").exists()


# What fails.


def test_broken_files_are_listed_and_the_run_goes_on(
    run: Run, source: Path, tmp_path: Path, undisturbed: Path, draw_photos: Draw
) -> None:
    (source / "dog/text.png").write_text("no image")
    (source / "dog/empty.jpg").touch()
    whole = (source / "cat/b.jpg").read_bytes()
    (source / "cat/z-torn.jpg").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out"
    report = run(source, out)
    assert report.exit_code is ExitCode.SOME_FAILED
    assert (report.total, report.made) == (10, 7)
    said = {row.key: row.error for row in report.failed}
    assert said == {
        "dog/text.png": "not an image (text?)",
        "dog/empty.jpg": "empty file",
        "cat/z-torn.jpg": "truncated file",
    }
    assert same(out, undisturbed)  # nor do they change the others
    rows = {row.key: row for row in read_run_manifest(out / "manifest.parquet")}
    failed = rows["dog/text.png"]
    assert (failed.status, failed.output, failed.output_sha256, failed.width) == (Status.FAILED, "", "", 0)
    assert failed.source_sha256 == hashlib.sha256(b"no image").hexdigest()

    # Mended, they are made by the same command, and only they.
    draw_photos(source, ["dog/text.png", "dog/empty.jpg"])
    report = run(source, out)
    assert (report.made, report.kept, [row.key for row in report.failed]) == (2, 7, ["cat/z-torn.jpg"])
    attempts = [row.status for row in read_run_manifest(out / "manifest.parquet") if row.key == "dog/text.png"]
    assert attempts == [Status.FAILED, Status.OK]


def test_an_image_too_long_for_its_format_fails_alone(run: Run, tmp_path: Path, draw_photos: Draw) -> None:
    source = draw_photos(tmp_path / "source", ["a.png", "c.png"])
    draw_photos(source, ["b.png"], width=16_400, height=2)
    report = run(source, tmp_path / "out", format=ImageFormat.WEBP)
    assert [(row.key, row.output) for row in report.failed] == [("b.png", "")]
    assert "webp allows 16383" in report.failed[0].error
    assert set(images(tmp_path / "out")) == {"a_v00.webp", "c_v00.webp"}
    assert estimate(source, tmp_path / "dry", report.settings).images == 3


def test_the_pixel_limit(run: Run, source: Path, tmp_path: Path, draw_photos: Draw) -> None:
    draw_photos(source, ["dog/large.png"], width=40, height=16)
    report = run(source, tmp_path / "out", pixel_limit=320)
    assert [row.error for row in report.failed] == ["image of 40x16 pixels; the limit is 320"]
    before = report.made
    report = run(source, tmp_path / "out", pixel_limit=640)  # what the message leads to
    assert (report.made, report.kept, report.failed) == (1, before, [])


def test_a_dry_run_refuses_what_the_run_would_refuse(
    run: Run, source: Path, tmp_path: Path, settings: Settings
) -> None:
    run(source, tmp_path / "out")
    assert estimate(source, tmp_path / "out", settings).already_made == 7
    with pytest.raises(DiffcleanError, match="holds a run with other settings"):
        estimate(source, tmp_path / "out", replace(settings, seed=7))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DiffcleanError, match=r"holds no run\.json"):
        estimate(source, tmp_path / "mine", settings)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_no_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DiffcleanError, match="holds no images"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DiffcleanError, match="No such file"):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_a_write_that_fails_stops_the_run_and_the_same_command_resumes(
    run: Run, source: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """The output folder of one class cannot be made: a file has its name."""
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        run(source, out, stop=StopAfter(3))
    (out / "eel").write_text("in the way")
    with pytest.raises(DiffcleanError, match=r"Cannot write .*: something that is no folder is in its way"):
        run(source, out)
    (out / "eel").unlink()
    assert run(source, out).exit_code is ExitCode.DONE
    assert same(out, undisturbed)


@pytest.mark.slow
def test_a_model_of_nan_writes_no_black_images(
    run: Run, source: Path, tmp_path: Path, nan_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for runtime in ("onnxruntime", "auto"):
        out = tmp_path / runtime
        report = run(source, out, engine=str(nan_model), runtime=runtime)
        assert report.exit_code is ExitCode.SOME_FAILED
        assert len(report.failed) == 7
        assert all(row.error.startswith("the engine gave values that are not finite") for row in report.failed)
        assert images(out) == {}
        assert {row.status for row in read_run_manifest(out / "manifest.parquet")} == {Status.FAILED}
        if "bf16" in report.engine:
            assert "are repeated in fp32" in caplog.text
            assert report.failed[0].error.endswith("also in fp32")


# What people are told.


def test_photographs_larger_than_the_detail(
    run: Run, tmp_path: Path, draw_photos: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    """People are told before the work what it will not keep."""
    source = draw_photos(tmp_path / "source", ["a.png", "b.png"], width=50, height=40)
    draw_photos(source, ["small.png"])
    with pytest.raises(Interrupted):
        run(source, tmp_path / "none", stop=StopAfter(0))
    assert "2 of 3 pictures in a sample are more than twice as large as the 16 px (`detail`)" in caplog.text


def test_auto_says_which_runtime(run: Run, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        report = run(source, tmp_path / "out", runtime="auto")
    assert "Runtime openvino in" in caplog.text
    assert "/openvino/" in report.engine


def test_an_estimate_writes_nothing(run: Run, source: Path, tmp_path: Path, settings: Settings) -> None:
    (source / "dog/text.png").write_text("no image")
    out = tmp_path / "out"
    before = sorted(tmp_path.rglob("*"))
    found = estimate(source, out, replace(settings, variations=2), threads=1)
    assert sorted(tmp_path.rglob("*")) == before
    assert (found.images, found.variations, found.already_made) == (8, 16, 0)
    assert found.images_per_second > 0
    assert found.seconds > 0
    run(source, out, variations=2)
    written = sum(len(data) for data in images(out).values())
    assert 0.5 < found.bytes / written < 2
    again = estimate(source, out, replace(settings, variations=2), threads=1)
    assert (again.already_made, again.variations) == (14, 16)
    for path in (source / "eel").iterdir():
        path.unlink()
    again = estimate(source, out, replace(settings, variations=2), threads=1)
    assert (again.already_made, again.variations) == (10, 12)  # what is no longer asked for does not count


def test_an_estimate_of_what_cannot_be_read(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.png").write_text("no image")
    with pytest.raises(DiffcleanError, match="None of the 1 images that were tried"):
        estimate(tmp_path / "source", tmp_path / "out", settings)


def test_an_estimate_of_an_empty_shard(tmp_path: Path, settings: Settings, draw_photos: Draw) -> None:
    source = draw_photos(tmp_path / "one", ["a.png"])
    shards = [Shard(index, 2) for index in (1, 2)]
    found = [estimate(source, tmp_path / "out", settings, shard=shard) for shard in shards]
    assert sorted((each.images, each.bytes > 0) for each in found) == [(0, False), (1, True)]
