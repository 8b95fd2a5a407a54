"""Pretraining of a network so small that a step takes milliseconds."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.families.micro import Micro
from diffclean.families.micro_view import COARSE_NOISE_MAX
from diffclean.pretraining.batches import batches, draws_at, prepared
from diffclean.pretraining.config import Length, PretrainConfig, learning_rate_at
from diffclean.pretraining.corruptions import CORRUPTIONS, Corruptions
from diffclean.pretraining.pretrain import pretrain

STEPS = 6
CONFIG = PretrainConfig(
    images=8 * STEPS, batch=8, size=16, channels=8, blocks=1, layers=1, heads=2, warmup_steps=2, validate_every=3
)
WEIGHTS = "model/unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """192 squares of two colours: 128 to train on, 64 held out."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 256, (192, 1, 1, 3)) * np.ones((1, 16, 16, 1))
    for image in drawn:
        top, left = rng.integers(0, 10, 2)
        image[top : top + 6, left : left + 6] = rng.integers(0, 256, 3)
    return drawn.astype(np.uint8)


@pytest.fixture(scope="module")
def undisturbed(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    pretrain(images, out, CONFIG)
    return out


class StopAfter(threading.Event):
    """Set once it was asked `steps` times: the trainer asks after each step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


class Killed(BaseException):
    """As sudden as SIGKILL: nothing of ours catches it."""


class KilledAfter:
    """A progress that kills the run after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        pass

    def advance(self, count: int = 1, **figures: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def end(self) -> None:
        pass


def checkpoint(out: Path) -> dict[str, Any]:
    return dict(torch.load(out / "checkpoint.pt", weights_only=True))


def test_what_is_written(undisturbed: Path, images: np.ndarray) -> None:
    names = {path.name for path in undisturbed.iterdir()}
    expected = {"config.json", "log.jsonl", "loss.png", "checkpoint.pt", "model"}
    assert names == expected | {"samples-000003.png", "samples-000006.png"}
    assert json.loads((undisturbed / "config.json").read_text())["corruptions"]["erase"] == 0.5
    log = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [3, 6]
    assert all(np.isfinite([entry["loss"], entry["validation_loss"]]).all() for entry in log)
    with Image.open(undisturbed / "samples-000006.png") as grid:
        assert grid.size == (8 * 16, 6 * 16)
        pixels = np.asarray(grid)
    held_out = images[-64:-56]
    assert (pixels[:16] == np.concatenate(list(held_out), axis=1)).all()
    assert checkpoint(undisturbed)["step"] == STEPS


def test_what_is_saved_is_the_average_and_loads(undisturbed: Path) -> None:
    saved = load_file(undisturbed / WEIGHTS)
    state = checkpoint(undisturbed)
    assert {name: tensor.half() for name, tensor in state["ema"].items()}.keys() == saved.keys()
    assert all(torch.equal(tensor.half(), saved[name]) for name, tensor in state["ema"].items())
    assert any(not torch.equal(state["ema"][name], state["master"][name]) for name in saved)
    assert Micro().load(undisturbed / "model").image_size == 16


def test_every_weight_learns(undisturbed: Path, images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        pretrain(images, tmp_path, CONFIG, stop=StopAfter(1))
    first, last = checkpoint(tmp_path)["master"], checkpoint(undisturbed)["master"]
    assert [name for name in first if torch.equal(first[name], last[name])] == []


def test_it_learns(images: np.ndarray, tmp_path: Path) -> None:
    longer = replace(CONFIG, images=8 * 60, ema=0.9, validate_every=20)
    pretrain(images, tmp_path, longer)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["validation_loss"] < 0.9 * log[0]["validation_loss"]


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_stopped_run_goes_the_way_of_an_undisturbed_one(
    undisturbed: Path, images: np.ndarray, tmp_path: Path, steps: int
) -> None:
    with pytest.raises(Interrupted, match=f"at step {steps} of {STEPS}"):
        pretrain(images, tmp_path, CONFIG, stop=StopAfter(steps))
    assert not (tmp_path / "model").exists()
    assert pretrain(images, tmp_path, CONFIG).steps == STEPS
    assert (tmp_path / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    first, second = checkpoint(tmp_path), checkpoint(undisturbed)
    assert all(torch.equal(first["master"][name], second["master"][name]) for name in second["master"])


def test_a_killed_run_resumes_at_its_last_checkpoint(undisturbed: Path, images: np.ndarray, tmp_path: Path) -> None:
    for steps in (5, 2):
        with pytest.raises(Killed):
            pretrain(images, tmp_path, CONFIG, KilledAfter(steps))
        assert checkpoint(tmp_path)["step"] == 3
    pretrain(images, tmp_path, CONFIG)
    assert (tmp_path / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


def test_a_finished_run_is_finished(undisturbed: Path, images: np.ndarray, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    shutil.rmtree(out / "model")
    result = pretrain(images, out, CONFIG)
    assert result.steps == STEPS
    logged = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["validation_loss"]
    assert result.validation_loss == pytest.approx(logged)
    assert (out / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


def test_a_run_can_be_made_longer(undisturbed: Path, images: np.ndarray, tmp_path: Path) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    assert pretrain(images, out, replace(CONFIG, images=8 * (STEPS + 2), validate_every=2)).steps == STEPS + 2
    assert (out / WEIGHTS).read_bytes() != (undisturbed / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.1}, "learning_rate: 0.0015 there, 0.1 asked"),
        ({"corrupt": False}, "corrupt: True there, False asked"),
        ({"channels": 16, "seed": 2}, "channels: 8 there, 16 asked; seed: 1 there, 2 asked"),
        ({"corruptions": Corruptions(blur=0)}, "corruptions: "),
    ],
)
def test_another_configuration_is_refused(
    undisturbed: Path, images: np.ndarray, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    out = Path(shutil.copytree(undisturbed, tmp_path / "out"))
    before = (out / "config.json").read_bytes()
    with pytest.raises(DiffcleanError, match=said):
        pretrain(images, out, replace(CONFIG, **change))
    assert (out / "config.json").read_bytes() == before


def spoil(out: Path, change: Callable[[dict[str, Any]], None]) -> bytes:
    """Change a checkpoint; returns its bytes."""
    state = checkpoint(out)
    change(state)
    torch.save(state, out / "checkpoint.pt")
    return (out / "checkpoint.pt").read_bytes()


def huge_weight(state: dict[str, Any]) -> None:
    state["master"]["leave.bias"].fill_(3e38)


def huge_momentum(state: dict[str, Any]) -> None:
    """The step's loss is fine, and the step ruins the weights."""
    for part in state["optimizer"]:
        for kept in part["state"].values():
            for name in ("exp_avg", "momentum_buffer"):
                if name in kept:
                    kept[name].fill_(float("inf"))


@pytest.mark.parametrize(("change", "said"), [(huge_weight, "The loss became"), (huge_momentum, "The validation loss")])
def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    images: np.ndarray, tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    config = replace(CONFIG, validate_every=1)
    with pytest.raises(Interrupted):
        pretrain(images, tmp_path, config, stop=StopAfter(2))
    before = spoil(tmp_path, change)
    with pytest.raises(DiffcleanError, match=f"{said}(.|\n)*`learning_rate`"):
        pretrain(images, tmp_path, config)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not (tmp_path / "model").exists()


def test_a_full_disk_spares_the_checkpoint(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        pretrain(images, tmp_path, CONFIG, stop=StopAfter(2))
    before = (tmp_path / "checkpoint.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is checked
            pretrain(images, tmp_path, CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    pretrain(images, tmp_path, CONFIG)


def test_too_few_images(images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="127 images are too few"):
        pretrain(images[:127], tmp_path / "out", CONFIG)
    assert not (tmp_path / "out").exists()


def numbered(count: int) -> np.ndarray:
    """Images that can be told apart, mirrored or not."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 16, 16, 3)).copy()


def drawn(images: np.ndarray, config: PretrainConfig, first: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = itertools.islice(batches(images, config, first), count)
    return [(clean.numpy(), corrupted.numpy()) for clean, corrupted in found]


def test_batches_follow_from_seed_and_step_alone(images: np.ndarray) -> None:
    whole = drawn(images, CONFIG, 0, 20)
    for first in (1, 7, 19):
        for (clean, corrupted), (again, corrupted_again) in zip(
            whole[first:], drawn(images, CONFIG, first, 20), strict=False
        ):
            assert (clean == again).all()
            assert (corrupted == corrupted_again).all()
    other = drawn(images, replace(CONFIG, seed=2), 0, 1)
    assert (other[0][0] != whole[0][0]).any()


@pytest.mark.parametrize("batch", [7, 8, 50])
def test_an_epoch_shows_every_image_once(batch: int) -> None:
    config = replace(CONFIG, batch=batch, corrupt=False)
    seen = np.concatenate([clean[:, 0, 0, 0] for clean, _ in drawn(numbered(30), config, 0, 30)])
    epochs = [seen[start : start + 30] for start in range(0, len(seen) - 29, 30)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_half_of_the_images_are_mirrored() -> None:
    slope = np.broadcast_to(np.arange(16, dtype=np.uint8)[None, None, :, None], (64, 16, 16, 3)).copy()
    clean = np.concatenate([clean for clean, _ in drawn(slope, replace(CONFIG, batch=64, low_resolution=0), 0, 10)])
    mirrored = clean[:, 0, 0, 0] == 15
    assert 0.4 < mirrored.mean() < 0.6
    assert (clean[mirrored] == slope[0, :, ::-1]).all()
    assert (slope == np.arange(16)[:, None]).all()


def test_without_corruption_the_view_is_of_the_clean_image(images: np.ndarray) -> None:
    assert all((clean == corrupted).all() for clean, corrupted in drawn(images, replace(CONFIG, corrupt=False), 0, 5))
    assert any((clean != corrupted).any() for clean, corrupted in drawn(images, CONFIG, 0, 1))


def test_going_on_with_other_images_is_said(
    images: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, images=2 * CONFIG.batch, validate_every=2)
    pretrain(images, tmp_path, config)
    pretrain(images, tmp_path, replace(config, images=3 * CONFIG.batch))
    assert "started with other images" not in caplog.text
    pretrain(images[::-1].copy(), tmp_path, replace(config, images=4 * CONFIG.batch))
    assert "started with other images" in caplog.text


COARSE = replace(CONFIG, coarse_views=True, low_resolution=0.5, corruptions=CORRUPTIONS["varied"], validate_every=6)


@pytest.fixture(scope="module")
def coarse(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "coarse"
    pretrain(images, out, COARSE)
    return out


def test_a_run_with_coarse_views_makes_a_model_that_says_so(coarse: Path, images: np.ndarray, tmp_path: Path) -> None:
    config = json.loads((coarse / "model/unet/config.json").read_text())
    assert config["view"] == 2
    assert json.loads((coarse / "config.json").read_text())["corruptions"]["patch"] > 0
    assert "view_cell" in [port.name for port in Micro().load(coarse / "model").components["unet"].inputs]
    with pytest.raises(Interrupted):
        pretrain(images, tmp_path, COARSE, stop=StopAfter(1))
    first, last = checkpoint(tmp_path)["master"], checkpoint(coarse)["master"]
    assert [name for name in first if torch.equal(first[name], last[name])] == []  # every weight learns
    of_cells = last["embed.0.weight"].view(16, 2, 3, 64)[:, :, 2] - first["embed.0.weight"].view(16, 2, 3, 64)[:, :, 2]
    assert of_cells.abs().max() > 0
    pretrain(images, tmp_path, COARSE)  # and a stopped run goes the way of an undisturbed one
    assert (tmp_path / WEIGHTS).read_bytes() == (coarse / WEIGHTS).read_bytes()


def test_cells_are_drawn_for_each_image_and_follow_its_own_pixels() -> None:
    config = replace(COARSE, size=64, batch=64)
    sides, levels = set(), []
    for step in range(40):
        draws = draws_at(config, step)
        assert draws.cell is not None
        assert (draws.cell[:, 0] == draws.cell[:, 1]).all()
        found = sorted({round(64 * side, 3) for side in draws.cell[:, 0].tolist()})
        assert len(found) in (2, 3)  # cells of 2 and 4 pixels can come to the same number of larger own pixels
        sides.add(tuple(found))
        levels.append(draws.view_level[draws.view_level <= 1])
    assert (2.0, 4.0, 8.0) in sides  # images of 64 px
    assert len(sides) > 10  # and smaller ones, of many sizes
    assert 0.5 < torch.cat(levels).max() <= COARSE_NOISE_MAX
    assert torch.equal(draws_at(config, 7).cell, draws_at(config, 7).cell)  # type: ignore[arg-type]
    assert draws_at(replace(config, coarse_views=False), 0).cell is None


def test_a_run_that_was_begun_before_there_were_coarse_views_goes_on(
    undisturbed: Path, images: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        pretrain(images, tmp_path, CONFIG, stop=StopAfter(3))

    def older(state: dict[str, Any]) -> None:
        del state["config"]["coarse_views"]
        for name in ("patch", "field"):
            del state["config"]["corruptions"][name]

    spoil(tmp_path, older)
    pretrain(images, tmp_path, CONFIG)
    assert (tmp_path / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    spoil(tmp_path, older)
    with pytest.raises(DiffcleanError, match="coarse_views: False there, True asked"):
        pretrain(images, tmp_path, replace(CONFIG, coarse_views=True))


def test_images_of_lower_resolution_are_part_of_what_is_learnt() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
    config = replace(CONFIG, size=32, batch=32, corrupt=False)
    detail = lambda share: np.mean(  # noqa: E731
        [clean.std() for clean, _ in drawn(noise, replace(config, low_resolution=share), 0, 6)]
    )
    assert detail(1) < 0.9 * detail(0)


def test_learning_rate() -> None:
    config = PretrainConfig(images=100 * 64, batch=64, warmup_steps=10, learning_rate=1.0, decay_share=0.2)
    rates = [learning_rate_at(step, config, config.steps) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80:101] == pytest.approx([1 - step / 20 for step in range(21)])


@pytest.mark.parametrize(
    "change",
    [
        {"size": 20},
        {"heads": 3},
        {"low_resolution": 1.5},
        {"start_share": -0.1},
        {"seed": -1},
        {"seed": 2**32},
        {"minutes": 0},
    ],
)
def test_a_configuration_that_makes_no_sense(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(change))}`"):
        replace(CONFIG, **change)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_minutes_become_a_number_of_steps_when_the_rate_has_to_fall(share: float) -> None:
    """From then on it is the run that was told so many images: no rate before that differs."""
    config = replace(CONFIG, minutes=1.0, decay_share=share)
    length = Length(config)
    step, rates = 0, []
    while not length.over(step):
        rates.append(learning_rate_at(step, config, length.steps))
        step += 1
        length.spend(step, 0.5)
    told = replace(config, minutes=None, images=step * config.batch)
    assert told.steps == length.steps == step
    assert rates == [learning_rate_at(each, told, told.steps) for each in range(step)]
    assert step == pytest.approx(120, rel=0.05)  # of half a second


def test_the_first_step_of_a_process_is_not_counted() -> None:
    length = Length(replace(CONFIG, minutes=1.0))
    length.spend(1, 1000)
    assert (length.seconds, length.steps) == (0.0, None)


def test_a_run_by_time_is_one_by_images(images: np.ndarray, tmp_path: Path) -> None:
    """Stopped before the number of steps is known and after; what comes out is that of a run told its images."""
    config = replace(CONFIG, minutes=0.01, decay_share=0.5, validate_every=1000)
    for steps in (1, 2):
        with pytest.raises(Interrupted):
            pretrain(images, tmp_path / "time", config, stop=StopAfter(steps))
    result = pretrain(images, tmp_path / "time", config)
    told = json.loads((tmp_path / "time" / "config.json").read_text())
    assert (told["images"], told["minutes"]) == (result.steps * 8, 0.01)
    pretrain(images, tmp_path / "images", replace(config, minutes=None, images=told["images"]))
    assert (tmp_path / "time" / WEIGHTS).read_bytes() == (tmp_path / "images" / WEIGHTS).read_bytes()
    assert pretrain(images, tmp_path / "time", config).steps == result.steps  # there is nothing left to do


def test_whoever_prepares_a_batch_it_is_the_same(images: np.ndarray) -> None:
    def found(workers: int) -> list[list[torch.Tensor]]:
        source = prepared(images, replace(CONFIG, low_resolution=0.5, coarse_views=True), 3, workers)
        first = [
            [example.clean, example.corrupted, *vars(example.draws).values()] for example in itertools.islice(source, 7)
        ]
        source.close()
        return first

    alone = found(0)
    pixels = drawn(images, replace(CONFIG, low_resolution=0.5), 3, 7)
    assert all((one[1].numpy() == corrupted).all() for one, (_, corrupted) in zip(alone, pixels, strict=True))
    for one, other in zip(alone, found(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("content", [b"", b"nonsense", None, {"config": 5}, {"master": {}}, {"optimizer": [1]}])
def test_a_damaged_checkpoint_is_named(
    content: bytes | dict[str, object] | None, undisturbed: Path, images: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is None:
        os.mkfifo(path)  # which is not waited for
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({**torch.load(undisturbed / "checkpoint.pt", weights_only=True), **content}, path)
    with pytest.raises(DiffcleanError, match=r"checkpoint\.pt is damaged or is not a checkpoint of `pretrain`"):
        pretrain(images, tmp_path, CONFIG)
