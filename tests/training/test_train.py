import json
import logging
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffclean.classifiers import checkpoints
from diffclean.data.atomic import WriteError
from diffclean.errors import DiffcleanError, UsageError
from diffclean.training import train
from diffclean.training.loop_config import LoopConfig
from diffclean.training.recipes import RECIPES
from diffclean.training.train_config import TrainConfig, check

Sets = tuple[Path, Path]
MakeVariations = Callable[..., Path]
OF_LOOP = set(LoopConfig.__dataclass_fields__)


def config(shapes: Sets, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {"data": shapes[0], "out": out, "arch": "tiny", **changes}
    loop = {"epochs": 1, "batch_size": 32, "device": "cpu", "tensorboard": False, "precision": "fp32"}
    loop |= {name: settings.pop(name) for name in OF_LOOP & set(settings)}
    return TrainConfig(loop=LoopConfig(**loop), **settings)  # type: ignore[arg-type]


def entries_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_learns(shapes: Sets, tmp_path: Path) -> None:
    settings = config(
        shapes, tmp_path / "t.pt", test=shapes[1], epochs=12, optimizer="adamw", learning_rate=0.01, tensorboard=True
    )
    result = train.train(settings)
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert result.metrics.test_accuracy > 0.7  # chance is 1/3
    read = checkpoints.load(result.path)
    assert read.class_to_idx == {"lying": 0, "square": 1, "standing": 2}
    assert read.size == (16, 16)
    assert read.metrics["test_accuracy"] == result.metrics.test_accuracy
    assert read.training["loop"]["epochs"] == 12
    entries = entries_of(result.log)
    assert entries[0]["loop"]["epochs"] == 12  # type: ignore[index]
    assert [entry["epoch"] for entry in entries[1:-1]] == list(range(1, 13))
    assert entries[-1]["done"]
    assert {path.name for path in tmp_path.iterdir()} == {"t.pt", "t.jsonl", "t.tensorboard"}, "and no state is left"
    assert len(list((tmp_path / "t.tensorboard").glob("events.out.tfevents.*"))) == 1


def test_without_tensorboard_there_are_its_lines_still(
    shapes: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with caplog.at_level(logging.INFO):
        result = train.train(config(shapes, tmp_path / "t.pt", tensorboard=True))
    assert "pip install 'diffclean[tensorboard]'" in caplog.text
    assert len(entries_of(result.log)) == 3


def test_same_seed_same_weights(shapes: Sets, tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(states))  # what the caller's generator holds plays no part
        train.train(config(shapes, tmp_path / f"{name}.pt", seed=seed))
        states.append(checkpoints.load(tmp_path / f"{name}.pt").model.state_dict())
    a, b, c = states
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_streamed_images_give_the_same_weights(shapes: Sets, tmp_path: Path) -> None:
    states = []
    for name, memory_gib in (("a", None), ("b", 0.0)):
        train.train(config(shapes, tmp_path / f"{name}.pt", memory_gib=memory_gib, validation_share=0.2))
        states.append(checkpoints.load(tmp_path / f"{name}.pt").model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_variations_of_an_image_count_as_one(shapes: Sets, tmp_path: Path, make_variations: MakeVariations) -> None:
    root = make_variations(shapes[1], tmp_path / "v", 3)
    result = train.train(config((root, root), tmp_path / "t.pt", validation_share=0.3))
    about, epoch, _ = entries_of(result.log)
    assert (about["data"]["images"], about["data"]["variations"]) == (60, 180)  # type: ignore[index]
    assert epoch["validation_images"] < 30  # type: ignore[operator]


def test_the_callers_random_numbers_are_left_alone(shapes: Sets, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train.train(config(shapes, tmp_path / "t.pt"))
    assert torch.equal(torch.get_rng_state(), before)


FAST = {name: RECIPES["fast"][name] for name in ("optimizer", "schedule", "flip", "shift")}


@pytest.mark.parametrize(
    ("changes", "arch"),
    [({"optimizer": "adamw"}, "test_vit"), ({"schedule": "multi-step"}, "wrn-16-1"), (FAST, "airnet")],
)
def test_optimisers_and_architectures_go_together(
    changes: dict[str, object], arch: str, shapes: Sets, tmp_path: Path
) -> None:
    size = 160 if arch == "test_vit" else None
    few = tmp_path / "few"
    for name in ("lying", "square"):
        (few / name).mkdir(parents=True)
        for index in range(2):
            (few / name / f"{index}.png").write_bytes((shapes[0] / name / f"{index:03d}.png").read_bytes())
    result = train.train(config((few, few), tmp_path / "t.safetensors", arch=arch, size=size, batch_size=4, **changes))
    assert checkpoints.load(result.path).size == ((160, 160) if size else (16, 16))


def test_bf16_learns_too(shapes: Sets, tmp_path: Path) -> None:
    result = train.train(config(shapes, tmp_path / "t.pt", precision="bf16", epochs=4))
    assert result.losses[-1] < result.losses[0]
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train.train(config(shapes, tmp_path / "u.pt", precision="fp16"))


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(shapes: Sets, tmp_path: Path) -> None:
    losses = [
        train.train(config(shapes, tmp_path / f"{compiled}.pt", arch="plain", compile=compiled, epochs=2)).losses
        for compiled in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    checkpoints.load(tmp_path / "True.pt")


def test_what_is_kept_with_patience_is_the_best_epoch(shapes: Sets, tmp_path: Path) -> None:
    """A rate far too high at the end makes it worse after a good start."""
    settings = config(
        shapes, tmp_path / "t.pt", epochs=40, validation_share=0.25, patience=3, learning_rate=0.3, schedule="constant"
    )
    result = train.train(settings)
    entries = entries_of(result.log)[1:-1]
    losses = [entry["validation_loss"] for entry in entries]
    best = losses.index(min(losses))  # type: ignore[type-var]
    assert len(losses) == best + 1 + 3 < 40, "it stopped three epochs after its best"
    assert result.metrics.best_epoch == best + 1
    assert result.metrics.validation_loss == losses[best]
    read = checkpoints.load(result.path)
    from diffclean.datasets.samples import folder_samples
    from diffclean.training.distributed import World
    from diffclean.training.objective import Supervised, measured

    samples = folder_samples(shapes[0])
    again = measured(read.model, samples, samples.split(0.25)[1], Supervised(), World(torch.device("cpu")), "fp32")
    assert again.loss == pytest.approx(losses[best], abs=1e-5), "the weights of that epoch, not of the last"


def test_the_average_is_what_is_kept(shapes: Sets, tmp_path: Path) -> None:
    plain = train.train(config(shapes, tmp_path / "a.pt"))
    average = train.train(config(shapes, tmp_path / "b.pt", ema=0.9))
    assert plain.losses == average.losses, "it trains as it did"
    states = [checkpoints.load(result.path).model.state_dict() for result in (plain, average)]
    assert not torch.equal(states[0]["net.6.weight"], states[1]["net.6.weight"])


def test_a_loss_that_is_no_number_stops(shapes: Sets, tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"(?s)no longer finite|loss became .*`learning_rate` \(it is 1e\+30\)"):
        train.train(config(shapes, tmp_path / "t.pt", learning_rate=1e30, epochs=3))
    assert not (tmp_path / "t.pt").exists()


def test_after_a_loss_that_is_no_number_the_last_good_state_is_there(shapes: Sets, tmp_path: Path) -> None:
    settings = config(shapes, tmp_path / "t.pt", learning_rate=1e4, epochs=30, arch="plain", save_every_s=0.0)
    with pytest.raises(DiffcleanError, match=r"epoch \d+, step \d+\. The last good state is kept in .*t\.resume"):
        train.train(settings)
    state = torch.load(tmp_path / "t.resume", weights_only=True)["state"]
    assert all(bool(tensor.isfinite().all()) for tensor in state["model"].values())


def test_a_full_disk_ends_a_training_that_can_be_done_again_in_the_same_process(
    shapes: Sets, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The error kept the log open and locked, and half of its first line looked like a file of somebody else."""
    train.train(config(shapes, tmp_path / "alone.pt"))
    first_bytes = len((tmp_path / "alone.jsonl").read_bytes().splitlines()[0])
    errors = []
    for limit_bytes in (10, first_bytes + 10):
        with file_size_limit(limit_bytes), pytest.raises(WriteError, match=r"t\.jsonl") as raised:
            train.train(config(shapes, tmp_path / "t.pt"))
        errors.append(raised.value)
    train.train(config(shapes, tmp_path / "t.pt"))
    assert (tmp_path / "t.pt").read_bytes() == (tmp_path / "alone.pt").read_bytes()


def test_stopping(shapes: Sets, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(DiffcleanError, match=r"Stopped in epoch 1 of 1, step 1 of 5; the state is in .*t\.resume") as e:
        train.train(config(shapes, tmp_path / "t.pt"), stop=stop)
    assert e.value.exit_code == 130
    assert not (tmp_path / "t.pt").exists()


def test_every_mistake_is_named(shapes: Sets, tmp_path: Path) -> None:
    wrong = {"epochs": 0, "batch_size": 1, "precision": "int4", "milestones": (0.7, 0.2), "patience": 3}
    with pytest.raises(UsageError, match=r"`epochs` .*`batch_size` .*`milestones` .*`precision` .*`validation_share`"):
        check(config(shapes, tmp_path / "t.pt", **wrong))
    with pytest.raises(UsageError, match=r"label_smoothing.*`size` must be at least 16.*`onnx` must be a .onnx file"):
        check(config(shapes, tmp_path / "t.pt", label_smoothing=1.0, size=8, onnx=tmp_path / "x.pt"))
    with pytest.raises(UsageError, match=r"\.pt or a \.safetensors"):
        check(config(shapes, tmp_path / "t.onnx"))
    with pytest.raises(UsageError, match=r"(?s)no architecture 'resnet1'.*resnet8-cifar"):
        train.train(config(shapes, tmp_path / "t.pt", arch="resnet1"))


def test_an_output_that_exists_is_kept(shapes: Sets, tmp_path: Path) -> None:
    (tmp_path / "t.pt").write_text("precious")
    with pytest.raises(DiffcleanError, match="exists"):
        check(config(shapes, tmp_path / "t.pt"))
    check(config(shapes, tmp_path / "t.pt", overwrite=True))
    assert (tmp_path / "t.pt").read_text() == "precious"


def test_data_that_nothing_can_be_learned_from(shapes: Sets, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "cat").mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(data / "cat" / f"{index}.png")
    settings = config((data, data), tmp_path / "t.pt")
    with pytest.raises(DiffcleanError, match="has only one class: cat"):
        train.train(settings)
    (data / "dog").mkdir()
    with pytest.raises(DiffcleanError, match=r"classes without an image that can be read: dog"):
        train.train(settings)
    Image.new("RGB", (16, 16)).save(data / "dog" / "1.png")
    (data / "owl").mkdir()
    with pytest.raises(DiffcleanError, match=r"classes without an image that can be read: owl"):
        train.train(settings)
    (data / "owl" / "1.png").write_bytes(b"nonsense")
    with pytest.raises(DiffcleanError, match=r"classes without an image that can be read: owl"):
        train.train(settings)


def test_an_output_beside_its_own_data_can_be_repeated(shapes: Sets, tmp_path: Path) -> None:
    """TensorBoard's folder and a class with a `%` in its name are no trouble."""
    data = shutil.copytree(shapes[1], tmp_path / "data")
    (data / "square").rename(data / "100%")
    for _ in range(2):
        result = train.train(config((data, shapes[1]), data / "t.pt", tensorboard=True, overwrite=True, test=None))
    assert set(checkpoints.load(result.path).class_to_idx) == {"100%25", "lying", "standing"}


def test_somebodys_file_is_not_written_over(shapes: Sets, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"my": "annotations"}\n')
    with pytest.raises(DiffcleanError, match=r"over .*labels\.jsonl, which is not a training log"):
        train.train(config(shapes, tmp_path / "labels.pt", overwrite=True))
    assert (tmp_path / "labels.jsonl").read_text() == '{"my": "annotations"}\n'
    (tmp_path / "dir.pt").mkdir()
    with pytest.raises(DiffcleanError, match="is a folder"):
        train.train(config(shapes, tmp_path / "dir.pt", overwrite=True))


def test_a_network_that_cannot_take_the_images(shapes: Sets, tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"(?s)vit_tiny_patch16_224 cannot take images of 16x16 px.*`size`"):
        train.train(config(shapes, tmp_path / "t.pt", arch="vit_tiny_patch16_224"))


def test_parts_of_a_data_set_are_not_learned_as_classes(shapes: Sets, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(shapes[1], tmp_path / "data" / part)
    with pytest.raises(DiffcleanError, match=r"(?s)train.*val.*look like the parts of a data set.*`label_from`"):
        train.train(config((tmp_path / "data", shapes[1]), tmp_path / "t.pt"))
    assert not (tmp_path / "t.pt").exists()
