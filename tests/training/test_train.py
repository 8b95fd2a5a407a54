import json
import threading
from pathlib import Path

import pytest
import torch

from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.training import checkpoints, train
from diffclean.training.train_config import TrainConfig, check

Sets = tuple[Path, Path]


def config(shapes: Sets, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {
        "data": shapes[0],
        "out": out,
        "arch": "resnet8-cifar",
        "epochs": 1,
        "batch_size": 32,
        "device": "cpu",
        **changes,
    }
    return TrainConfig(**settings)  # type: ignore[arg-type]


def test_learns(shapes: Sets, tmp_path: Path) -> None:
    settings = config(shapes, tmp_path / "t.pt", test=shapes[1], epochs=8, learning_rate=0.05)
    result = train.train(settings)
    assert result.losses[-1] < 0.7 * result.losses[0]
    assert result.metrics["test_accuracy"] > 0.7  # chance is 1/3
    read = checkpoints.load(result.path)
    assert read.class_to_idx == {"lying": 0, "square": 1, "standing": 2}
    assert read.size == (16, 16)
    assert read.metrics["test_accuracy"] == result.metrics["test_accuracy"]
    entries = [json.loads(line) for line in result.log_path.read_text().splitlines()]
    assert entries[0]["config"]["epochs"] == 8
    assert [entry["epoch"] for entry in entries[1:-1]] == list(range(1, 9))
    assert entries[-1]["done"]


def test_same_seed_same_weights(shapes: Sets, tmp_path: Path) -> None:
    states = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(states))  # what the caller's generator holds plays no part
        train.train(config(shapes, tmp_path / f"{name}.pt", seed=seed))
        states.append(checkpoints.load(tmp_path / f"{name}.pt").model.state_dict())
    a, b, c = states
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_the_callers_random_numbers_are_left_alone(shapes: Sets, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train.train(config(shapes, tmp_path / "t.pt"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_that_is_no_number_stops(shapes: Sets, tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"(?s)loss became .*--learning-rate \(it is 1e\+30\)"):
        train.train(config(shapes, tmp_path / "t.pt", learning_rate=1e30, epochs=3))
    assert not (tmp_path / "t.pt").exists()


def test_stopping(shapes: Sets, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        train.train(config(shapes, tmp_path / "t.pt"), stop=stop)
    assert not (tmp_path / "t.pt").exists()


def test_every_mistake_is_named(shapes: Sets, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"epochs .*batch_size .*precision"):
        check(config(shapes, tmp_path / "t.pt", epochs=0, batch_size=1, precision="int4"))
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


def test_one_cycle_rises_and_falls() -> None:
    rates = [train.one_cycle(step / 100, 0.2) for step in range(100)]
    assert rates[20] == 1
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_channel_statistics() -> None:
    images = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 51
    mean, std = train.channel_statistics(images)
    unit = images.double().div(255).transpose(0, 1).reshape(3, -1)
    assert mean == pytest.approx(unit.mean(1).tolist())
    assert std[:2] == pytest.approx(unit[:2].std(1, correction=0).tolist())
    assert std[2] == pytest.approx(1 / 255)
