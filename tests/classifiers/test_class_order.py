"""A good classifier under a wrong class order is wrong nearly always: that is said, and which order fits."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from diffclean.classifiers.class_order import better_order, natural_order
from diffclean.classifiers.networks import ARCHITECTURES, build
from diffclean.cli.main import main
from diffclean.data.classes import class_to_idx


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([str(n) for n in range(12)], [str(n) for n in range(12)]),
        ([f"{n:02d}" for n in range(12)], [f"{n:02d}" for n in range(12)]),
        (["n10", "n9", "a"], ["a", "n9", "n10"]),
        (["10", "2", "ant"], ["2", "10", "ant"]),
        (["²", "2" * 5000], ["2" * 5000, "²"]),
    ],
)
def test_natural_order_counts(names: list[str], expected: list[str]) -> None:
    assert natural_order(sorted(names)) == expected


@pytest.mark.parametrize("kind", ["natural", "permuted"])
def test_the_order_that_fits_is_found(kind: str) -> None:
    names = [str(n) for n in range(12)]
    table = class_to_idx(names)  # 0, 1, 10, 11, 2, ...
    order = names if kind == "natural" else random.Random(1).sample(names, 12)
    true = [str(n % 12) for n in range(240)]
    labels = torch.tensor([table[name] for name in true])
    answers = torch.tensor([order.index(name) for name in true])
    answers[::20] = 0  # it need not be perfect
    found = better_order(answers, labels, table)
    assert found is not None
    assert found[1] == order
    assert found[2] > 0.9
    assert (found[0] == "natural order") is (kind == "natural")
    assert better_order(labels, labels, table) is None


@pytest.mark.parametrize(
    ("assumed", "order", "title"),
    [
        (["Bee", "Dog", "ant", "cat"], ["ant", "Bee", "cat", "Dog"], "order without regard to capitals"),
        (["0", "2", "10"], ["0", "10", "2"], "order of their bytes"),
        (["a", "B", "c"], ["c", "a", "B"], "the order that its answers suggest"),
    ],
)
def test_other_orders_are_found_by_name(assumed: list[str], order: list[str], title: str) -> None:
    table = {name: number for number, name in enumerate(assumed)}
    true = assumed * 20
    labels = torch.tensor([table[name] for name in true])
    answers = torch.tensor([order.index(name) for name in true])
    assert better_order(answers, labels, table) == (title, order, 1.0)


class Levels(nn.Module):
    """Twelve grey levels, told apart in natural order."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.arange(12) / 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -100 * (x.mean((1, 2, 3))[:, None] - self.levels) ** 2


@pytest.fixture
def greys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders 0 ... 11 with a grey level each, and the weights of a classifier that knows them."""
    monkeypatch.setitem(ARCHITECTURES, "levels", lambda classes: Levels())
    for level in range(12):
        for number in range(2):
            place = tmp_path / "data" / str(level) / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (round(level * 255 / 12),) * 3).save(place)
    torch.save(build("levels", 12).net.state_dict(), tmp_path / "w.pt")
    return tmp_path / "data", tmp_path / "w.pt"


def test_evaluate_says_that_natural_order_fits(
    greys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, weights = greys
    told = ["--teacher-arch", "levels", "--teacher-mean", "0", "0", "0", "--teacher-std", "1", "1", "1"]
    assert main(["evaluate", str(weights), str(data), *told]) == 0
    said = capsys.readouterr().err
    assert "agrees with only 4 of 24 labels" in said
    assert "in natural order it would agree with 100 %" in said
    listed = tmp_path / "order.json"
    listed.write_text(json.dumps([str(n) for n in range(12)]))
    assert main(["evaluate", str(weights), str(data), *told, "--teacher-classes", str(listed)]) == 0
    said_now = capsys.readouterr()
    assert "100.0 %" in said_now.out
    assert "agrees with only" not in said_now.err
    listed.write_text(json.dumps(sorted(str(n) for n in range(12))))
    assert main(["evaluate", str(weights), str(data), *told, "--teacher-classes", str(listed)]) == 0
    assert "in natural order it would agree with 100 %" in capsys.readouterr().err


def test_distill_warns_of_twelve_numbers_in_another_order(
    greys: tuple[Path, Path],
    make_variations: object,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tiny_archs: None,
) -> None:
    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.training.distill import distill
    from diffclean.training.distill_config import DistillConfig
    from diffclean.training.loop_config import LoopConfig

    data, weights = greys
    varied = make_variations(data, tmp_path / "varied")  # type: ignore[operator]
    teacher = ClassifierFile(weights, arch="levels", mean=(0, 0, 0), std=(1, 1, 1))
    with caplog.at_level(logging.WARNING):
        distill(DistillConfig(teacher=teacher, data=varied, out=tmp_path / "s.pt", student="tiny",
                              loop=LoopConfig(epochs=1, tensorboard=False)))  # fmt: skip
    assert "The teacher agrees with only 4 of 24 labels of the variations (17 %)" in caplog.text
    assert "in natural order it would agree with 100 %" in caplog.text


def test_suspects_are_not_judged_by_a_teacher_in_another_order_without_a_word(
    greys: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    from diffclean.classifiers.classifier_file import ClassifierFile
    from diffclean.detection.find import find_suspects

    data, weights = greys
    teacher = ClassifierFile(weights, arch="levels", mean=(0, 0, 0), std=(1, 1, 1))
    with caplog.at_level(logging.WARNING):
        find_suspects(data, "spectral", teacher, device="cpu")
    assert "agrees with only 4 of 24 labels" in caplog.text
    assert "in natural order it would agree with 100 %" in caplog.text
