"""`variate` on pictures larger than the model's square: windows, from files to files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import files

from diffclean.data.fit import Fit, OutputSize
from diffclean.errors import Interrupted
from diffclean.families.micro_view import COARSE_FACTORS
from diffclean.families.seeds import image_seed, window_seed
from diffclean.progress import NoProgress
from diffclean.variation.blend import Blend
from diffclean.variation.color import ColorTransfer
from diffclean.variation.estimate import estimate
from diffclean.variation.settings import Settings, open_for
from diffclean.variation.variate import Concurrency, variate
from diffclean.variation.windows import GRID, from_canvas, layout, to_canvas

Draw = Callable[..., Path]
ONE = Concurrency(threads=1)
KEYS = ["cat/a.png", "cat/b.png", "dog/c.png"]


@pytest.fixture
def source(tmp_path: Path, draw_photos: Draw) -> Path:
    """Pictures of 70 px and one that is smaller than a window."""
    draw_photos(tmp_path / "source", KEYS, width=70, height=50)
    return draw_photos(tmp_path / "source", ["dog/small.png"], width=12, height=9)


@pytest.fixture
def settings(tiny_model: Path, tiny_engine: Path) -> Settings:
    return Settings(engine=str(tiny_model), runtime="onnxruntime", steps=2, batch=4, detail=40)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


class StopAtWindow(NoProgress):
    """Sets an event once so many windows were run; remembers what it was told."""

    def __init__(self, windows: int = 10**9) -> None:
        import threading

        self.windows = windows
        self.stop = threading.Event()
        self.figures: list[float] = []

    def advance(self, count: int = 1, **figures: float) -> None:
        if "windows" in figures:
            self.figures.append(figures["windows"])
            if figures["windows"] >= self.windows:
                self.stop.set()


@pytest.mark.parametrize("name", ["tiny_model", "coarse_model"])
def test_a_picture_is_its_windows_blended(
    source: Path, settings: Settings, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    """Of its own size, each window with noise of its own, made as the sampler makes it alone."""
    settings = replace(settings, engine=str(request.getfixturevalue(name)), strength=0.5, steps=2)
    report = variate(source, tmp_path / "out", settings, concurrency=ONE)
    sampler = open_for(settings, threads=1).sampler()
    plan = layout(70, 50, 16, 40, Fit.SQUASH)
    canvas, blend = to_canvas(pixels(source / "cat/a.png"), plan), Blend(plan.windows)
    for number in range(len(plan.windows)):
        square = torch.from_numpy(np.stack([plan.windows.cut(canvas, number)] * 4))
        seed = window_seed(image_seed(0, "cat/a.png", 0), number)
        blend.add(sampler.generate(square, [seed] * 4)[0][0].numpy())
    made = pixels(tmp_path / "out/cat/a_v00.png")
    assert made.shape == (50, 70, 3)
    assert (made == from_canvas(blend.canvas, plan, OutputSize())).all()
    assert report.windows == 3 * len(plan.windows) + 1


@pytest.mark.slow
def test_nothing_but_the_settings_decides_the_bytes(source: Path, settings: Settings, tmp_path: Path) -> None:
    whole = variate(source, tmp_path / "one", settings, concurrency=ONE).out
    for name, concurrency in (("workers", Concurrency(workers=4, threads=1)), ("two", Concurrency(2, threads=1))):
        report = variate(source, tmp_path / name, settings, concurrency=concurrency)
        assert files(tmp_path / name) == files(whole), name
        assert report.windows == 3 * 12 + 1


def test_across_batch_sizes_they_stay_within_one_grey_level(source: Path, settings: Settings, tmp_path: Path) -> None:
    variate(source, tmp_path / "4", settings, concurrency=ONE)
    variate(source, tmp_path / "7", replace(settings, batch=7), concurrency=ONE)
    for path in (tmp_path / "4").rglob("*.png"):
        other = pixels(tmp_path / "7" / path.relative_to(tmp_path / "4"))
        assert np.abs(pixels(path).astype(int) - other).max() <= 1


def test_stopped_in_the_middle_of_a_picture_and_resumed(source: Path, settings: Settings, tmp_path: Path) -> None:
    out, progress = tmp_path / "out", StopAtWindow(16)
    with pytest.raises(Interrupted, match="1 of 4 variations"):
        variate(source, out, settings, concurrency=ONE, progress=progress, stop=progress.stop)
    assert variate(source, out, settings, concurrency=ONE).kept == 1
    assert files(out) == files(variate(source, tmp_path / "whole", settings, concurrency=ONE).out)


def test_a_small_picture_and_a_small_detail_are_one_window(source: Path, settings: Settings, tmp_path: Path) -> None:
    """A detail of the square's side, or of less, is the way it was without windows."""
    outs = [
        variate(source, tmp_path / str(detail), replace(settings, detail=detail), concurrency=ONE).out
        for detail in (1, 16, 40)
    ]
    first, second, windows = (files(out) for out in outs)
    assert first == second
    assert windows["dog/small_v00.png"] == first["dog/small_v00.png"]
    assert windows["cat/a_v00.png"] != first["cat/a_v00.png"]


def test_the_detail_is_a_setting_of_the_run(source: Path, settings: Settings, tmp_path: Path) -> None:
    variate(source, tmp_path / "out", replace(settings, detail=1), concurrency=ONE)
    assert variate(source, tmp_path / "out", replace(settings, detail=16), concurrency=ONE).kept == 4  # the same
    with pytest.raises(Exception, match="detail: 16 there, 40 asked for"):
        variate(source, tmp_path / "out", settings, concurrency=ONE)


def test_finer_than_the_detail_is_gone(tmp_path: Path, settings: Settings) -> None:
    """High frequencies of the source may hold a trigger: nothing of a fine checkerboard is in the outcome."""
    y, x = np.mgrid[0:80, 0:80]
    flat = np.full((80, 80, 3), 128, np.uint8)
    board = np.repeat((128 + 100 * ((x + y) % 2 * 2 - 1))[..., None], 3, axis=2).astype(np.uint8)
    made = {}
    for name, image in (("flat", flat), ("board", board)):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "a.png")
        out = variate(tmp_path / name, tmp_path / f"{name}-out", settings, concurrency=ONE).out
        made[name] = pixels(out / "a_v00.png").astype(int)
    assert np.abs(made["board"] - made["flat"]).max() <= 2


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        (Fit.SQUASH, "source", (70, 10)),
        (Fit.PAD, "source", (70, 10)),
        (Fit.CROP, "source", (10, 10)),
        (Fit.SQUASH, "native", (40, 16)),
        (Fit.PAD, "native", (40, 16)),
        (Fit.PAD, "35", (35, 5)),
    ],
)
def test_fits_and_sizes(
    tmp_path: Path, draw_photos: Draw, settings: Settings, fit: Fit, size: str, expected: tuple[int, int]
) -> None:
    source = draw_photos(tmp_path / "source", ["a.png"], width=70, height=10)
    settings = replace(settings, fit=fit, size=OutputSize.parse(size))
    variate(source, tmp_path / "out", settings, concurrency=ONE)
    assert Image.open(tmp_path / "out/a_v00.png").size == expected


def test_colours_are_those_of_the_whole_picture(source: Path, settings: Settings, tmp_path: Path) -> None:
    """Not of each window: that would copy the source's light and shade."""
    settings = replace(settings, size=OutputSize(native=True))
    plain = variate(source, tmp_path / "plain", settings, concurrency=ONE).out
    moved = variate(
        source, tmp_path / "moved", replace(settings, color_transfer=ColorTransfer.MEAN_STD), concurrency=ONE
    ).out
    before, after = (pixels(out / "cat/a_v00.png").astype(float) for out in (plain, moved))
    for channel in range(3):  # one line for the whole channel, where nothing was clipped
        inside = (after[..., channel] > 0) & (after[..., channel] < 255)
        x, y = before[..., channel][inside], after[..., channel][inside]
        assert np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() <= 1


def test_people_are_told_what_it_costs_and_see_it_move(
    source: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = estimate(source, tmp_path / "out", replace(settings, variations=2), threads=1)
    assert found.windows == 2 * (3 * 12 + 1)
    assert found.windows_per_image == (3 * 12 + 1) / 4
    assert found.images_per_second == pytest.approx(found.windows_per_second / found.windows_per_image)
    progress = StopAtWindow()
    with caplog.at_level(logging.INFO):
        report = variate(source, tmp_path / "out", settings, concurrency=ONE, progress=progress)
    assert "A picture has 9 windows of 16 px on average (`detail` 40): about 37 windows for 4 variations" in caplog.text
    assert progress.figures[-1] == report.windows == 37
    assert len(progress.figures) == 10  # batches
    written = sum(len(data) for name, data in files(tmp_path / "out").items() if name.endswith(".png"))
    assert 0.3 < found.bytes / 2 / written < 3


def test_windows_lie_on_the_grid_of_coarse_views() -> None:
    """Else a cell of one window would be cut in two by its neighbour's, and show what the cell hides."""
    assert all(GRID % factor == 0 for factor in COARSE_FACTORS)
