import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from diffclean.classifiers import checkpoints, loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import build, unit_floats
from diffclean.datasets.variations import load_variations
from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.training import distill
from diffclean.training.distill_config import DistillConfig, check, default_out
from diffclean.training.distill_loss import soften
from diffclean.training.loop_config import LoopConfig
from diffclean.training.objective import Batch

Sets = tuple[Path, Path]
Make = Callable[..., Path]
CPU = torch.device("cpu")
QUICK = LoopConfig(
    epochs=1, batch_size=32, optimizer="adamw", learning_rate=0.01, device="cpu", precision="fp32", tensorboard=False
)


def config(teacher: Path, data: Path, out: Path, **changes: object) -> DistillConfig:
    loop = replace(QUICK, **{name: changes.pop(name) for name in LoopConfig.__dataclass_fields__ & changes.keys()})
    return DistillConfig(ClassifierFile(teacher), data, out, loop=loop, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def variations(shapes: Sets, tmp_path_factory: pytest.TempPathFactory, make_variations: Make) -> Path:
    return make_variations(shapes[0], tmp_path_factory.mktemp("v") / "shapes-variations", 2)


class Recorded:
    """A teacher's objective in a run, with the tables and batches that it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objective: distill.Distillation | None = None
        self.batches: list[Batch] = []
        call = distill.Distillation.__call__

        def spy(objective: distill.Distillation, logits: torch.Tensor, batch: Batch) -> object:
            self.objective = objective
            self.batches.append(batch)
            return call(objective, logits, batch)

        monkeypatch.setattr(distill.Distillation, "__call__", spy)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_student_learns(alpha: float, teacher: Path, variations: Path, shapes: Sets, tmp_path: Path) -> None:
    settings = config(teacher, variations, tmp_path / "s.safetensors", alpha=alpha, epochs=12, test=shapes[1])
    result = distill.distill(settings)
    assert result.metrics.test_accuracy > 0.6
    assert (result.metrics.train_agreement is not None) == (alpha == 1) != (result.metrics.train_accuracy is not None)
    assert result.metrics.teacher_accuracy > 0.6
    read = checkpoints.load(result.path)
    assert read.arch == "tiny", "the teacher's own"
    assert read.training["alpha"] == alpha
    assert read.training["teacher"]["sha256"]
    assert read.class_to_idx == checkpoints.load(teacher).class_to_idx


def test_without_augmentation_the_teacher_answers_once(
    teacher: Path, variations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorded(monkeypatch)
    distill.distill(config(teacher, variations, tmp_path / "s.pt", augment=False, epochs=2))
    assert seen.objective is not None
    assert seen.objective.table is not None
    for batch in seen.batches:
        online = soften(seen.objective.teacher.logits(batch.images), 10.0)
        assert torch.allclose(seen.objective.table[batch.views], online, atol=1e-5)
    shown = torch.cat([batch.views for batch in seen.batches]) % 2
    assert 0.3 < shown.float().mean() < 0.7, "each image is shown as one of its two variations"


@pytest.mark.parametrize(
    "change", [{"augment": True}, {"augment": False, "turn": 20.0}, {"augment": False, "zoom": 0.2}]
)
def test_with_augmentation_the_teacher_sees_what_the_student_sees(
    teacher: Path, variations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, float]
) -> None:
    seen = Recorded(monkeypatch)
    asked = []
    answer = loading.LoadedClassifier.logits
    monkeypatch.setattr(
        loading.LoadedClassifier, "logits", lambda self, images: asked.append(images) or answer(self, images)
    )
    distill.distill(config(teacher, variations, tmp_path / "s.pt", **change))
    assert seen.objective is not None
    assert seen.objective.table is None
    for batch, images in zip(seen.batches, asked[-len(seen.batches) :], strict=True):
        assert batch.images is images


def test_averaged_targets_are_the_mean_over_the_variations(
    teacher: Path, variations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Recorded(monkeypatch)
    distill.distill(config(teacher, variations, tmp_path / "s.pt", targets="averaged", temperature=2.0))
    assert seen.objective is not None
    table = seen.objective.table
    assert table is not None
    samples = load_variations(variations, checkpoints.load(teacher).class_to_idx)
    pixels = unit_floats(next(samples.pixels.batches([torch.tensor([6, 7])])))
    expected = soften(seen.objective.teacher.logits(pixels), 2.0).mean(0)
    assert torch.allclose(table[6], expected, atol=1e-5)
    assert torch.equal(table[6], table[7])


def test_images_of_many_sizes_come_to_the_teachers(teacher: Path, shapes: Sets, tmp_path: Path) -> None:
    """`distill --teacher t.pt` needs no more to be said where `t.pt` knows."""
    data = shutil.copytree(shapes[1], tmp_path / "data")
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        with Image.open(path) as image:
            image.resize((16 + number % 3, 24)).save(path)
    distill.distill(config(teacher, data, tmp_path / "s.pt"))
    assert checkpoints.load(tmp_path / "s.pt").size == (16, 16)


def test_the_teachers_normalisation_and_size_are_its_own(shapes: Sets, tmp_path: Path) -> None:
    """A teacher of 8 px whose logits show what reached it: the mean of each channel, normalised by its own numbers."""

    class Means(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[2:] == (8, 8)
            return x.mean((2, 3))

    from diffclean.classifiers.networks import Classifier

    network = Classifier(Means(), (0.5, 0.5, 0.5), (0.1, 0.1, 0.1))
    found = loading.LoadedClassifier(network, {"a": 0, "b": 1, "c": 2}, (8, 8), None, "")
    images = torch.rand(4, 3, 16, 16)
    assert torch.allclose(found.logits(images), (images.mean((2, 3)) - 0.5) / 0.1, atol=0.1)


def test_a_stopped_distillation_ends_with_the_same_bits(teacher: Path, variations: Path, tmp_path: Path) -> None:
    class AtLook(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks >= 8

    whole = distill.distill(config(teacher, variations, tmp_path / "a.pt", epochs=2, validation_share=0.2))
    settings = config(teacher, variations, tmp_path / "b.pt", epochs=2, validation_share=0.2)
    with pytest.raises(Interrupted, match="epoch 2 of 2"):
        distill.distill(settings, stop=AtLook())
    with pytest.raises(DiffcleanError, match=r"(?s)temperature: 10.0 there, 4.0 asked for"):
        distill.distill(replace(settings, temperature=4.0))
    cut = distill.distill(settings)
    expected, found = (checkpoints.load(result.path).model.state_dict() for result in (whole, cut))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    entries = [json.loads(line) for line in cut.log.read_text().splitlines()]
    assert {"validation_loss", "validation_agreement"} <= set(entries[1])


def test_other_classes_than_the_teachers(teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("lying", "waving"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "data" / name / "1.png")
    with pytest.raises(UsageError, match=r"only .*data has waving; only the teacher knows square, standing"):
        distill.distill(config(teacher, tmp_path / "data", tmp_path / "s.pt", alpha=0.5))
    result = distill.distill(config(teacher, tmp_path / "data", tmp_path / "s.pt"))
    assert "only the teacher knows square, standing. Labels are not used here" in caplog.text
    assert result.metrics.teacher_accuracy is not None, "of the class that both know"


def test_labels_are_not_needed(teacher: Path, shapes: Sets, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(shapes[1].rglob("*.png")):
        (flat / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    result = distill.distill(config(teacher, flat, tmp_path / "s.pt"))
    assert result.metrics.teacher_accuracy is None
    assert "match" not in caplog.text
    assert checkpoints.load(result.path).class_to_idx == {"lying": 0, "square": 1, "standing": 2}
    with pytest.raises(DiffcleanError, match=r"only the teacher knows lying"):
        distill.distill(config(teacher, flat, tmp_path / "t.pt", alpha=0.5))


def test_a_teacher_that_knows_nothing_is_noticed(
    variations: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Random weights stand for a wrong class order or normalisation."""
    torch.manual_seed(0)
    torch.save(build("plain", 3).net.state_dict(), tmp_path / "w.pt")
    settings = config(tmp_path / "w.pt", variations, tmp_path / "s.pt", student="plain")
    settings = replace(settings, teacher=ClassifierFile(tmp_path / "w.pt", arch="plain"))
    with caplog.at_level(logging.WARNING):
        distill.distill(settings)
    assert "The teacher agrees with only" in caplog.text


def test_a_student_as_onnx_too(teacher: Path, variations: Path, tmp_path: Path) -> None:
    result = distill.distill(config(teacher, variations, tmp_path / "s.pt", onnx=tmp_path / "s.onnx"))
    read = loading.load(ClassifierFile(tmp_path / "s.onnx"), {}, CPU)
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(read.logits(images), checkpoints.load(result.path).model(images), atol=1e-3)


def test_every_mistake_is_named(teacher: Path, variations: Path, tmp_path: Path) -> None:
    wrong = config(teacher, variations, tmp_path / "s.pt", temperature=0.0, alpha=2.0, targets="none", epochs=0, size=3)
    wrong = replace(wrong, teacher=ClassifierFile(teacher, std=(0.0, 1.0, 1.0), role="teacher"))
    with pytest.raises(UsageError, match=r"epochs.*teacher_std.*temperature.*alpha.*targets.*size"):
        check(wrong)
    with pytest.raises(UsageError, match="which has no weight at `alpha` 1"):
        check(config(teacher, variations, tmp_path / "s.pt", paper_loss=True))
    with pytest.raises(UsageError, match="written over the teacher"):
        check(config(teacher, variations, teacher, overwrite=True))
    assert default_out(Path("models/t.onnx")) == Path("t-student.pt")


def test_paper_loss_changes_the_labels_term_only(variations: Path, teacher: Path) -> None:
    found = loading.load(ClassifierFile(teacher), {}, CPU)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    batch = Batch(torch.rand(4, 3, 16, 16), labels, torch.arange(4), whole=False)
    losses = {}
    for paper in (False, True):
        for alpha in (0.0, 1.0):
            settings = config(teacher, variations, Path("s.pt"), paper_loss=paper, alpha=alpha)
            losses[paper, alpha] = distill.Distillation(found, settings, None)(logits, batch)[0].item()
    assert losses[False, 1.0] == losses[True, 1.0]
    assert losses[True, 0.0] == pytest.approx(nn.functional.cross_entropy(logits / 10, labels).item())
    assert losses[False, 0.0] == pytest.approx(nn.functional.cross_entropy(logits, labels).item())
