"""The coarse view of the family micro: what it shows, where its cells lie, what a strength means, and parity."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffclean.data.fit import Fit, to_square
from diffclean.errors import DiffcleanError
from diffclean.export.cache import cached_engine
from diffclean.export.onnx import onnx_from_component, parity_of_onnx, reference_outputs
from diffclean.families.base import Look
from diffclean.families.micro import Micro
from diffclean.families.micro_model import NO_VIEW_LEVEL, ViewEncoder
from diffclean.families.micro_pipeline import MicroPipeline
from diffclean.families.micro_view import (
    COARSE_FACTORS,
    COARSE_NOISE_MAX,
    CoarseViewEncoder,
    cell_sides,
    coarse_look,
    view_inputs,
)
from diffclean.families.registry import engines_root, recipe_for
from diffclean.runtime.choose import Engine, open_engine
from diffclean.runtime.openvino import best_precision
from diffclean.variation.sampler import Sampler, SamplerSettings

STRENGTHS = [float(strength) for strength in np.linspace(0.001, 1, 400)]
TOLD = {"sample", "timestep", "view", "view_level", "view_cell"}
SEEDS = [3, 2**64 - 1, 17]


def seen(pixels: Tensor, factor: float, own: float, level: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """The view of (B, S, S, 3) sources that have `own` pixels of their own a side."""
    count, size = pixels.shape[:2]
    sides = cell_sides(torch.full((count,), float(factor)), torch.full((count, 2), float(own)), size)
    noise = torch.zeros(count, 3, size // 2, size // 2) if noise is None else noise
    view: Tensor = CoarseViewEncoder()(pixels, view_level=torch.full((count,), level), **view_inputs(noise, sides))
    return view


def random_pixels(count: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def enlarged(image: np.ndarray, size: int) -> Tensor:
    """A small source as the model sees it: (H, W, 3) uint8 -> (1, S, S, 3)."""
    return torch.from_numpy(to_square(image, size, Fit.SQUASH)[0])[None]


def checkerboard(side: int, contrast: int = 60) -> np.ndarray:
    """A trigger that is as fine as the source's own pixels: (side, side, 3) uint8 around grey."""
    signs = (-1) ** np.add.outer(np.arange(side), np.arange(side))
    return np.broadcast_to((128 + contrast * signs)[..., None], (side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("factor", COARSE_FACTORS)
def test_a_view_averages_squares_of_pixels(factor: int) -> None:
    pixels = random_pixels(2, 64)
    image = pixels.permute(0, 3, 1, 2) / 127.5 - 1
    expected = functional.interpolate(functional.avg_pool2d(image, factor), scale_factor=factor / 2, mode="nearest")
    assert torch.allclose(seen(pixels, factor, 64), expected, atol=1e-6)


def test_the_finest_coarse_view_is_the_first_models_view() -> None:
    pixels, noise = random_pixels(2, 64), torch.randn(2, 3, 32, 32)
    first = ViewEncoder()(pixels, noise, torch.full((2,), 0.3))
    assert torch.allclose(seen(pixels, 2, 64, 0.3, noise), first, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "own", "cells"),
    [(2, 64, 32), (4, 64, 16), (8, 64, 8), (2, 32, 32), (4, 32, 16), (8, 32, 8), (2, 28, 28), (4, 28, 14), (8, 28, 7)],
)
def test_cells_are_whole_numbers_of_own_pixels(factor: int, own: int, cells: int) -> None:
    height, width = cell_sides(torch.tensor([float(factor)]), torch.tensor([[own, own]]).float(), 64)[0].tolist()
    assert height == width == pytest.approx(1 / cells)
    assert own / cells == round(own / cells)


def test_cells_of_any_source_are_aligned_or_as_fine_as_the_grid() -> None:
    for own in range(1, 65):
        for factor in COARSE_FACTORS:
            (side, _) = cell_sides(torch.tensor([float(factor)]), torch.tensor([[own, own]]).float(), 64)[0].tolist()
            in_own_pixels = side * own
            assert in_own_pixels == pytest.approx(round(in_own_pixels), abs=1e-4) or side == 2 / 64, (own, factor)
            assert 2 / 64 <= side <= 1


def test_sides_are_aligned_each_by_itself() -> None:
    """A picture that is not square was squashed: its own pixels are not square either."""
    sides = cell_sides(torch.tensor([8.0]), torch.tensor([[16.0, 32.0]]), 64)[0]
    assert sides.tolist() == [2 / 16, 4 / 32]
    rows = np.repeat(checkerboard(16)[:, :1], 64, axis=1)
    stripes = torch.from_numpy(rows.repeat(4, axis=0))[None]
    zeros = torch.zeros(1, 3, 32, 32)
    view = CoarseViewEncoder()(stripes, view_level=torch.zeros(1), **view_inputs(zeros, sides[None]))
    assert view.std() < 1e-6  # rows that alternate within a cell are averaged away


@pytest.mark.parametrize("own", [24, 28, 32])
def test_what_alternates_within_a_cell_is_hidden_where_cells_are_aligned(own: int) -> None:
    source = enlarged(checkerboard(own), 64)
    aligned = seen(source, 4, own)[..., 1:-1, 1:-1].std()
    assert aligned < 0.02 * (source / 127.5).std()
    if 64 % own:  # cells of four pixels of the square, as a larger source would have them, would show a moire
        assert seen(source, 4, 64)[..., 1:-1, 1:-1].std() > 5 * aligned


def test_a_cell_has_one_noise() -> None:
    """Noise that differed within a cell could be averaged away."""
    noise = torch.randn(1, 3, 32, 32)
    view = seen(torch.full((1, 64, 64, 3), 128, dtype=torch.uint8), 8, 64, 0.5, noise)
    assert [len(channel.unique()) for channel in view[0]] == [64, 64, 64]
    blocks = view.unfold(2, 4, 4).unfold(3, 4, 4)
    assert (blocks == blocks[..., :1, :1]).all()
    assert torch.allclose(blocks[..., 0, 0], 0.5 * noise[..., :8, :8] + 1 / 255, atol=1e-6)


def test_no_view_withholds_all_of_the_source() -> None:
    assert not seen(random_pixels(1, 64), 4, 64, NO_VIEW_LEVEL, torch.randn(1, 3, 32, 32)).any()
    told = {"view": torch.ones(2, 3, 8, 8), "view_level": torch.ones(2) / 3, "view_cell": torch.ones(2) / 4}
    withheld = Micro().withhold(told)
    assert not withheld["view"].any()
    assert withheld["view_level"].tolist() == [NO_VIEW_LEVEL] * 2
    assert withheld["view_cell"].tolist() == [0, 0]


def test_the_look_weakens_with_the_strength() -> None:
    """Never a finer view, and never less noise on what is smooth, which a view of any fineness shows."""
    looks = [coarse_look(strength) for strength in STRENGTHS]
    assert {factor for factor, _ in looks} == set(COARSE_FACTORS)
    for (factor, level), (next_factor, next_level) in pairwise(looks):
        assert next_factor >= factor
        assert next_factor * next_level > factor * level
        assert 0 < level <= COARSE_NOISE_MAX  # training has seen it
    assert coarse_look(0.2) == (2, pytest.approx(0.32))


def test_the_documented_curve_is_the_one_that_counts() -> None:
    page = (engines_root().parent / "docs" / "families.md").read_text()
    table = page.partition("| strength | averaging factor |")[2].partition("\n\n")[0]
    rows = [[float(cell) for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(rows) == 10
    for strength, factor, level, of_photograph, of_small in rows:
        found = coarse_look(strength)
        assert (found[0], round(found[1], 2)) == (factor, level)
        for own, cells in ((64, of_photograph), (32, of_small)):
            sides = cell_sides(torch.tensor([factor]), torch.tensor([[own, own]]).float(), 64)
            assert 1 / sides[0, 0] == cells


def test_the_strength_means_what_the_model_was_trained_for() -> None:
    assert Micro().look(0.3) == Micro().look(0.3, TOLD - {"view_cell"}) == Look(start=1.0, level=0.3)
    assert Micro().look(0.5, TOLD) == Look(start=1.0, level=pytest.approx(0.4), factor=4)


@pytest.fixture(scope="module")
def engine(coarse_model: Path) -> Engine:
    return open_engine(cached_engine(recipe_for(str(coarse_model))), "onnxruntime", threads=1)


def test_what_a_coarse_model_is_told(engine: Engine) -> None:
    names = {place: [port.name for port in entry.inputs] for place, entry in engine.manifest.components.items()}
    assert set(names["unet"]) == TOLD
    assert names["image_encoder"] == ["pixels", "noise", "view_level", "down", "across"]
    look = engine.family.look(0.5, TOLD)
    noise = {"image_encoder": torch.zeros(3, 3, 8, 8)}
    told = engine.family.condition(engine.call, random_pixels(3, 16), noise, look)
    assert told["view_level"].tolist() == pytest.approx([0.4] * 3)
    assert told["view_cell"].tolist() == pytest.approx([4 / 16] * 3)
    own = torch.tensor([[16.0, 16.0], [8.0, 8.0], [7.0, 5.0]])
    told = engine.family.condition(engine.call, random_pixels(3, 16), noise, Look(1.0, 0.0, 4, own))
    assert told["view_cell"].tolist() == pytest.approx([4 / 16, 2 / 8, (2 / 7 * 1 / 5) ** 0.5])
    whole = torch.stack([seen(random_pixels(3, 16), 4, side)[row] for row, side in enumerate((16, 8))])
    assert torch.allclose(told["view"][:2], whole, atol=1e-6)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_every_runtime_makes_what_the_stock_pipeline_makes(coarse_model: Path, runtime: str) -> None:
    pipeline = MicroPipeline.from_pretrained(coarse_model)
    pipeline.set_progress_bar_config(disable=True)
    engine = open_engine(cached_engine(recipe_for(str(coarse_model))), runtime, "fp32", threads=1)
    pixels = random_pixels(3, 16)
    for strength in (0.1, 0.5, 1.0):
        made, finite = Sampler(engine, SamplerSettings(4, strength, 1.0, "ddim")).generate(pixels, SEEDS)
        expected = pipeline(pixels, SEEDS, strength=strength, num_inference_steps=4)
        assert finite.all()
        assert made.float().std(dim=(1, 2, 3)).min() > 10  # a picture
        assert (made.int() - expected.int()).abs().max() <= 1


def test_runtimes_agree_on_small_sources_and_guidance(engine: Engine, coarse_model: Path) -> None:
    own = [(16.0, 16.0), (7.0, 7.0), (11.0, 5.0)]
    made = []
    for runtime in ("onnxruntime", "openvino", "torch"):
        opened = open_engine(engine.directory, runtime, "fp32", threads=1)
        sampler = Sampler(opened, SamplerSettings(3, 0.5, 2.0, "ddim"))
        made.append(sampler.generate(random_pixels(3, 16), SEEDS, own)[0].int())
    assert (made[0] - made[1]).abs().max() <= 1
    assert (made[0] - made[2]).abs().max() <= 1
    sampler = Sampler(engine, SamplerSettings(3, 0.5, 2.0, "ddim"))
    plain = sampler.generate(random_pixels(3, 16), SEEDS)[0].int()
    assert (plain[0] == made[0][0]).all()
    assert (plain[1] != made[0][1]).any()  # other cells, another view
    order = [2, 0, 1]
    moved, _ = sampler.generate(random_pixels(3, 16)[order], [SEEDS[i] for i in order], [own[i] for i in order])
    assert (moved.int() == made[0][order]).all()  # an image depends on its own row alone


def test_components_compute_what_torch_computes(engine: Engine) -> None:
    for entry in engine.manifest.components.values():
        assert entry.parity["max_relative"] <= 1e-4


def test_cells_end_where_they_should_in_half_precision(coarse_model: Path) -> None:
    """Worked out inside a graph in bf16, the edges of cells would move by a part of a pixel."""
    if best_precision() != "bf16":
        pytest.skip("this CPU does not compute in bf16")
    engine = open_engine(cached_engine(recipe_for(str(coarse_model))), "openvino", "bf16", threads=1)
    noise = {"image_encoder": torch.randn(16, 3, 8, 8)}
    for factor in COARSE_FACTORS:
        own = torch.arange(1, 17)[:, None].expand(16, 2).float()
        told = engine.family.condition(engine.call, random_pixels(16, 16), noise, Look(1.0, 0.1, factor, own))
        for row in range(16):
            exact = seen(random_pixels(16, 16)[row][None], factor, row + 1, 0.1, noise["image_encoder"][row][None])
            assert (told["view"][row] - exact[0]).abs().max() < 0.02


@pytest.mark.slow
def test_cells_are_exact_in_half_precision(coarse_model: Path, tmp_path: Path) -> None:
    for name in ("image_encoder", "unet"):
        component = Micro().load(coarse_model).components[name]
        expected = reference_outputs(component)
        onnx_from_component(component, tmp_path / name / "model.onnx", "fp16")
        assert parity_of_onnx(component, tmp_path / name / "model.onnx", "fp16", expected)["max_relative"] <= 2e-2


@pytest.mark.slow
def test_a_model_that_names_no_view_is_one_of_the_first(make_model: Callable[..., Path], tmp_path: Path) -> None:
    """The weights that were shipped before there were two versions: same graphs, byte for byte, same meaning."""
    named = make_model(tmp_path / "named")
    old = Path(shutil.copytree(named, tmp_path / "old"))
    config = json.loads((old / "unet/config.json").read_text())
    assert config.pop("view") == 1
    (old / "unet/config.json").write_text(json.dumps(config))
    for place in ("image_encoder", "unet"):
        for model in (named, old):
            onnx_from_component(Micro().load(model).components[place], model / f"{place}.onnx")
        assert (named / f"{place}.onnx").read_bytes() == (old / f"{place}.onnx").read_bytes()


def test_the_shipped_model_has_a_view_of_the_version_that_it_was_trained_with() -> None:
    """Its configuration decides what `--strength` means; a mistake here would change it silently."""
    directory = engines_root() / "micro"
    version = json.loads((directory / "unet/config.json").read_text()).get("view", 1)
    recipe = (directory / "pretrain.toml").read_text()
    assert version == (2 if "coarse-views = true" in recipe else 1)
    told = [port.name for port in Micro().load(directory).components["unet"].inputs]
    assert ("view_cell" in told) == (version == 2)


def test_a_view_of_a_later_version_is_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    config = json.loads((model / "unet/config.json").read_text())
    (model / "unet/config.json").write_text(json.dumps(config | {"view": 3}))
    with pytest.raises(DiffcleanError, match="a view of version 3"):
        Micro().load(model)
