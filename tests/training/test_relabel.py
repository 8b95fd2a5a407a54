"""New labels for suspects: worked by hand on pictures of one colour, and through `train` and `distill`."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffclean.classifiers import checkpoints
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.loading import LoadedClassifier
from diffclean.data.convert import convert
from diffclean.data.registry import FOLDER, FORMATS, open_source
from diffclean.datasets.pixels import InMemory
from diffclean.datasets.samples import Samples
from diffclean.errors import UsageError
from diffclean.progress import NoProgress
from diffclean.training import distill, train
from diffclean.training.distill_config import DistillConfig
from diffclean.training.distributed import World
from diffclean.training.loop_config import LoopConfig
from diffclean.training.relabel import Relabelled, Relabelling, open_second, relabelled
from diffclean.training.train_config import TrainConfig, check

Sets = tuple[Path, Path]
MakeVariations = Callable[..., Path]
CPU = torch.device("cpu")
CLASSES = {"red": 0, "green": 1, "blue": 2}
RED, GREEN, BLUE, GREY = (250, 0, 0), (0, 250, 0), (0, 0, 250), (50, 50, 50)
QUICK = LoopConfig(
    epochs=1, batch_size=32, optimizer="adamw", learning_rate=0.01, device="cpu", precision="fp32", tensorboard=False
)


def flat(colours: list[tuple[int, int, int]], labels: list[int], variations: int = 1) -> Samples:
    """Pictures of one pixel, named by their numbers; the `variations` of each image stand side by side."""
    pixels = InMemory(torch.tensor(colours, dtype=torch.uint8)[:, :, None, None])
    starts = torch.arange(0, len(colours) + 1, variations)
    keys = [str(number) for number in range(len(labels))]
    return Samples(pixels, starts, keys, torch.tensor(labels), CLASSES, {}, [""] * len(keys), "")


def brightest(images: Tensor) -> Tensor:
    """(B, 3, 1, 1) in [0, 1] -> (B, 3): the brighter a colour, the surer the answer."""
    return images[:, :, 0, 0] * 5


def done_with(
    samples: Samples, listed: set[str], classes: dict[str, int] = CLASSES, keep_confirmed: bool = False
) -> tuple[Samples, Relabelled]:
    how = Relabelling(LoadedClassifier(brightest, classes, None, None, "", name="m.pt"), 0.5, keep_confirmed)
    return relabelled(samples, listed, how, Path("data"), World(CPU), NoProgress())


def labels_of(samples: Samples) -> dict[str, int]:
    return dict(zip(samples.keys, samples.labels.tolist(), strict=True))


SUSPECT = flat([RED, GREEN, BLUE, RED, GREY, RED], [0, 0, 0, 0, 0, 2])
"""On the list below are 1 and 2 with wrong labels, 3 with the right one, and 4, which could be anything."""
LISTED = {"1", "2", "3", "4"}


def test_listed_images_get_the_answer_as_their_label_and_the_others_keep_theirs() -> None:
    after, done = done_with(SUSPECT, LISTED)
    assert labels_of(after) == {"0": 0, "1": 1, "2": 2, "5": 2}
    assert (done.model, done.images, done.labels) == ("m.pt", 4, {"green": 1, "blue": 1})
    assert (done.confirmed, done.confirmed_kept, done.unsure) == (1, False, 1)
    assert done.agreement == 0.5, "it agrees with 0 and not with 5"
    (pixels,) = after.pixels.batches([torch.arange(4)])
    assert [tuple(colour) for colour in pixels[:, :, 0, 0].tolist()] == [RED, GREEN, BLUE, RED]


def test_images_whose_label_is_confirmed_stay_if_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    after, done = done_with(SUSPECT, LISTED, keep_confirmed=True)
    assert labels_of(after) == {"0": 0, "1": 1, "2": 2, "3": 0, "5": 2}
    assert (done.confirmed, done.confirmed_kept) == (1, True)
    assert "confirms the labels" not in caplog.text
    done_with(SUSPECT, {"3"}, keep_confirmed=True)
    assert "confirms the labels of 1 of 1 listed images" in caplog.text


def test_all_variations_of_an_image_decide_together() -> None:
    """Of the second image, one variation is surely green and the other one a little red."""
    samples = flat([RED, RED, GREEN, (50, 20, 0), BLUE, BLUE], [0, 0, 2], variations=2)
    after, _ = done_with(samples, {"1"})
    assert labels_of(after) == {"0": 0, "1": 1, "2": 2}
    assert after.starts.tolist() == [0, 2, 4, 6]


def test_classes_are_matched_by_their_names() -> None:
    """The first logit of this classifier is the highest for a red picture, and stands for the class green."""
    after, done = done_with(flat([RED, BLUE], [2, 2]), {"0"}, classes={"green": 0, "red": 1, "blue": 2})
    assert labels_of(after) == {"0": CLASSES["green"], "1": CLASSES["blue"]}
    assert done.labels == {"green": 1}


def test_other_labels_are_other_data_to_a_resumed_run() -> None:
    plain, _ = done_with(SUSPECT, LISTED)
    again, _ = done_with(SUSPECT, LISTED)
    others, _ = done_with(SUSPECT, LISTED, classes={"red": 0, "green": 2, "blue": 1})
    assert labels_of(others).keys() == labels_of(plain).keys()
    assert plain.digest == again.digest != others.digest


def test_a_list_of_another_data_set_is_refused() -> None:
    for listed, how in (({"x"}, "none of its images is"), (set("012345"), "all of its images are")):
        with pytest.raises(UsageError, match=f"does not belong to data: {how} on it"):
            done_with(SUSPECT, listed)
    after, done = done_with(SUSPECT, set())
    assert (len(after.keys), done.images) == (6, 0), "a list that names nobody changes nothing"


def test_a_classifier_that_contradicts_the_other_labels_is_doubted(caplog: pytest.LogCaptureFixture) -> None:
    _, done = done_with(flat([RED, GREEN, BLUE], [1, 2, 0]), {"0"})
    assert done.agreement == 0
    assert "agrees with only 0% of the labels" in caplog.text


@pytest.fixture
def mislabelled(shapes: Sets, tmp_path: Path) -> tuple[Path, Path]:
    """Drawn shapes, of which six bars were moved to the squares; and a list of these and of two squares."""
    data = shutil.copytree(shapes[0], tmp_path / "data")
    keys = [f"square/lying-{index}.png" for index in range(6)]
    for index, key in enumerate(keys):
        (data / "lying" / f"{index:03d}.png").rename(data / key)
    (tmp_path / "list.json").write_text(json.dumps([*keys, "square/000.png", "square/001.png"]))
    return data, tmp_path / "list.json"


def test_train_learns_from_the_new_labels_and_records_them(
    mislabelled: tuple[Path, Path], teacher: Path, tmp_path: Path
) -> None:
    data, listed = mislabelled
    settings = TrainConfig(
        data, tmp_path / "t.pt", without=listed, relabel=teacher, relabel_confidence=0.5, arch="tiny", loop=QUICK
    )
    result = train.train(settings)
    done = result.relabelled
    assert done is not None
    assert (done.images, done.model) == (8, str(teacher))
    assert sum(done.labels.values()) + done.confirmed + done.unsure == 8
    assert done.labels["lying"] >= 3, "this teacher is mostly right"
    assert done.agreement is not None
    assert done.agreement > 0.7
    read = checkpoints.load(result.path)
    assert read.metrics["images"] == len(open_source(data).items()) - done.confirmed - done.unsure
    assert read.training["relabelled"] == vars(done)
    assert read.training["relabel"]["confidence"] == 0.5
    plain = train.train(TrainConfig(data, tmp_path / "u.pt", without=listed, arch="tiny", loop=QUICK))
    assert plain.relabelled is None
    assert "relabel" not in checkpoints.load(plain.path).training


def test_distill_asks_the_teacher_about_the_variations(
    mislabelled: tuple[Path, Path], teacher: Path, tmp_path: Path, make_variations: MakeVariations
) -> None:
    data, listed = mislabelled
    run = make_variations(data, tmp_path / "v", 2)
    settings = DistillConfig(
        ClassifierFile(teacher),
        run,
        tmp_path / "s.pt",
        without=listed,
        relabel=True,
        relabel_confidence=0.5,
        alpha=0.5,
        loop=QUICK,
    )
    result = distill.distill(settings)
    done = result.relabelled
    assert done is not None
    assert (done.images, done.model) == (8, str(teacher))
    assert done.labels["lying"] >= 3
    assert result.metrics.teacher_accuracy == pytest.approx(done.agreement), "both are measured beside the list"
    assert checkpoints.load(result.path).training["relabelled"]["labels"] == done.labels


@pytest.mark.parametrize("name", [name for name in FORMATS if name != FOLDER])
def test_every_format_can_be_relabelled(name: str, shapes: Sets, teacher: Path, tmp_path: Path) -> None:
    convert(str(shapes[1]), tmp_path / "out", name)
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([item.key for item in open_source(tmp_path / "out").items()][:5]))
    settings = TrainConfig(
        tmp_path / "out", tmp_path / "t.pt", without=listed, relabel=teacher, arch="tiny", loop=QUICK
    )
    done = train.train(settings).relabelled
    assert done is not None
    assert done.images == 5


def test_mistakes_are_named_before_any_work(shapes: Sets, teacher: Path, tmp_path: Path) -> None:
    def config(**changes: object) -> TrainConfig:
        return TrainConfig(shapes[0], tmp_path / "t.pt", **changes)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=r"`relabel` needs a list .*: `without` suspects\.json"):
        check(config(relabel=teacher))
    with pytest.raises(UsageError, match=r"(?s)`keep_confirmed` .*needs `relabel`.*`relabel_confidence` must be in"):
        check(config(keep_confirmed=True, relabel_confidence=1.0))
    with pytest.raises(UsageError, match="would be overwritten by the new classifier"):
        check(config(relabel=tmp_path / "t.pt", without=tmp_path / "list.json", overwrite=True))


def test_a_classifier_that_cannot_label_these_images_is_refused(
    shapes: Sets, teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    classes = {"lying": 0, "square": 1, "waving": 2}
    with pytest.raises(UsageError, match=r"only data has waving; only the classifier knows standing"):
        open_second(teacher, "relabel", classes, Path("data"), CPU)
    torch.save(torch.load(teacher, weights_only=True)["state_dict"], tmp_path / "bare.pt")
    with pytest.raises(UsageError, match=r"(?s)does not say which network it is.*`relabel` MODEL"):
        open_second(tmp_path / "bare.pt", "relabel", classes, Path("data"), CPU)
