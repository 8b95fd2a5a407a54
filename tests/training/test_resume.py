import json
import os
import random
import threading
from pathlib import Path

import pytest
import torch

from diffclean.classifiers import checkpoints
from diffclean.errors import DiffcleanError, Interrupted
from diffclean.training.loop_config import LoopConfig
from diffclean.training.train import train
from diffclean.training.train_config import TrainConfig

Sets = tuple[Path, Path]
SETTINGS = {
    "epochs": 4,
    "batch_size": 32,
    "ema": 0.9,
    "validation_share": 0.2,
    "patience": 2,
    "device": "cpu",
    "save_every_s": 0.0,
    "tensorboard": False,
}


class Killed(BaseException):
    """As a kill: nothing may catch it."""


class KillingEvent(threading.Event):
    """Dies at the n-th look: the state on disk is all that is left."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        if self.looks < 0:
            raise Killed
        return False


def config(shapes: Sets, out: Path, **changes: object) -> TrainConfig:
    return TrainConfig(data=shapes[0], out=out, arch="tiny", loop=LoopConfig(**{**SETTINGS, **changes}))  # type: ignore[arg-type]


def killed(settings: TrainConfig, looks: int) -> None:
    with pytest.raises(Killed):
        train(settings, stop=KillingEvent(looks))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_a_run_killed_at_random_steps_ends_with_the_same_bits(optimizer: str, shapes: Sets, tmp_path: Path) -> None:
    whole = train(config(shapes, tmp_path / "whole.pt", optimizer=optimizer))
    settings = config(shapes, tmp_path / "cut.pt", optimizer=optimizer)
    dice = random.Random(optimizer)
    deaths = 0
    while not settings.out.exists():
        try:
            cut = train(settings, stop=KillingEvent(dice.randrange(1, 8)))
        except Killed:
            deaths += 1
        assert deaths < 50
    assert deaths >= 3
    expected, found = (checkpoints.load(path).model.state_dict() for path in (whole.path, settings.out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert cut.losses == whole.losses
    assert cut.metrics == whole.metrics
    epochs = [json.loads(line).get("epoch") for line in cut.log.read_text().splitlines()]
    assert epochs == [None, *range(1, len(whole.losses) + 1), None], "each epoch is in the log once"


def test_ctrl_c_resumes_in_the_middle_of_an_epoch(shapes: Sets, tmp_path: Path) -> None:
    class AtThirdLook(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks >= 3

    whole = train(config(shapes, tmp_path / "whole.pt"))
    settings = config(shapes, tmp_path / "cut.pt", save_every_s=1e9)
    with pytest.raises(Interrupted, match=r"epoch 1 of 4, step 3 of 4"):
        train(settings, stop=AtThirdLook())
    train(settings)
    expected, found = (checkpoints.load(path).model.state_dict() for path in (whole.path, settings.out))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not (tmp_path / "cut.resume").exists()


def test_two_runs_of_one_output_do_not_write_at_once(shapes: Sets, tmp_path: Path) -> None:
    settings = config(shapes, tmp_path / "t.pt")

    class Meanwhile(threading.Event):
        told = ""

        def is_set(self) -> bool:
            if not self.told:
                with pytest.raises(DiffcleanError, match="Another process is training") as refused:
                    train(settings)
                self.told = str(refused.value)
            return False

    meanwhile = Meanwhile()
    result = train(settings, stop=meanwhile)
    assert str(tmp_path / "t.jsonl") in meanwhile.told
    lines = [json.loads(line) for line in result.log.read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == list(range(1, len(result.losses) + 1))
    assert lines[-1]["done"]


def test_an_output_that_cannot_be_written_is_a_plain_error(shapes: Sets, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiffcleanError, match="is not a folder"):
        train(config(shapes, tmp_path / "file" / "t.pt"))


def test_other_settings_are_refused_and_named(shapes: Sets, tmp_path: Path) -> None:
    killed(config(shapes, tmp_path / "t.pt"), 6)
    with pytest.raises(
        DiffcleanError, match=r"(?s)loop.epochs: 4 there, 5 asked for.*loop.seed: 1 there, 2.*overwrite"
    ):
        train(config(shapes, tmp_path / "t.pt", epochs=5, seed=2))
    with pytest.raises(DiffcleanError, match=r"(?s)data.images: 180 there, 60 asked for"):
        train(config((shapes[1], shapes[1]), tmp_path / "t.pt"))
    before = (tmp_path / "t.resume").read_bytes()
    assert before, "a refusal leaves the state alone"
    # What decides no weight may change.
    train(config(shapes, tmp_path / "t.pt", save_every_s=5.0, memory_gib=0.0))


def test_overwrite_begins_anew_only_where_settings_differ(shapes: Sets, tmp_path: Path) -> None:
    killed(config(shapes, tmp_path / "t.pt"), 20)
    again = TrainConfig(
        data=shapes[0], out=tmp_path / "t.pt", arch="tiny", overwrite=True, loop=config(shapes, tmp_path / "t.pt").loop
    )
    with pytest.raises(Killed):
        train(again, stop=KillingEvent(1))
    state = torch.load(tmp_path / "t.resume", weights_only=True)["state"]
    assert state["epoch"] + state["step"] > 2, "the same command with --overwrite went on"
    other = TrainConfig(
        data=shapes[0], out=tmp_path / "t.pt", arch="plain", overwrite=True, loop=config(shapes, tmp_path / "t.pt").loop
    )
    assert len(train(other).losses) <= 4


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_state_is_named(content: bytes | None, shapes: Sets, tmp_path: Path) -> None:
    path = tmp_path / "t.resume"
    if content is None:
        torch.save({"format": "something else"}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(DiffcleanError, match=r"(?s)t\.resume is damaged.*`overwrite`"):
        train(config(shapes, tmp_path / "t.pt"))


@pytest.mark.parametrize(
    "change", [{"identity": 5}, {"identity": [1]}, {"state": 5}, {"state": {}}, {"state": {"sums": "x", "epoch": None}}]
)
def test_a_state_of_other_content_is_named(change: dict[str, object], shapes: Sets, tmp_path: Path) -> None:
    killed(config(shapes, tmp_path / "t.pt"), 5)
    path = tmp_path / "t.resume"
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(DiffcleanError, match=r"(?s)t\.resume is damaged.*`overwrite`"):
        train(config(shapes, tmp_path / "t.pt"))


def test_a_pipe_in_place_of_a_state_or_a_log_is_not_waited_for(shapes: Sets, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.resume")
    with pytest.raises(DiffcleanError, match=r"t\.resume is damaged"):
        train(config(shapes, tmp_path / "t.pt"))
    os.mkfifo(tmp_path / "other.jsonl")
    with pytest.raises(DiffcleanError, match=r"other\.jsonl, which is not a training log"):
        train(config(shapes, tmp_path / "other.pt"))
