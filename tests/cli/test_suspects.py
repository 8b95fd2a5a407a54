"""`diffclean suspects`: what it says, what it writes, and that what it advises can be typed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from suspect_set import COUNT, TRIGGERED, draw_suspects, vary_suspects

from diffclean.attacks.base import Labels
from diffclean.attacks.record import PoisonedImage, PoisonManifest
from diffclean.classifiers import checkpoints
from diffclean.cli.main import main
from diffclean.data.suspects import JudgedClass, read_list, read_suspects
from diffclean.detection import registry
from diffclean.detection.base import Evidence, Judgement
from diffclean.progress import Progress

QUICK = {"DIFFCLEAN_EPOCHS": "1", "DIFFCLEAN_DEVICE": "cpu", "DIFFCLEAN_TENSORBOARD": "0"}
OURS = ["--teacher", "fooled.pt", "--detector", "variation-drop", "--variations", "data-variations"]
Capture = pytest.CaptureFixture[str]


class Given:
    """A detector that lists the images of the classes that it is told to list."""

    name = "given"
    citation = "none"
    needs_teacher = False
    needs_variations = False
    needs_retrained = False

    def __init__(self, classes: list[JudgedClass], keys: set[str]) -> None:
        self.classes, self.keys = classes, keys

    def judge(self, evidence: Evidence, progress: Progress) -> Judgement:
        listed = np.array([key in self.keys for key in evidence.images.keys])
        return Judgement(listed * 1.0, listed * 1.0, listed, self.classes)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`given(classes, keys)`: what `--detector given` finds."""

    def register(classes: list[JudgedClass], keys: set[str]) -> None:
        monkeypatch.setitem(registry.DETECTORS, "given", Given(classes, keys))

    return register


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def advice(said: str) -> list[list[str]]:
    """The commands that the verb says can be typed."""
    return [shlex.split(line)[1:] for line in said.splitlines() if line.startswith("    diffclean ")]


def manifest_of(data: Path) -> Path:
    """The poison manifest of `suspect_set`, with a cover beside the poisoned images."""
    images = [
        PoisonedImage(f"{key}.jpg", key, key.split("/")[0], key in TRIGGERED, "", "", key == "red/000.png")
        for key in sorted(f"{path.parent.name}/{path.name}" for path in data.glob("*/*.png"))
    ]
    classes = {"blue": 0, "green": 1, "red": 2}
    manifest = PoisonManifest("badnets", {}, 0.1, "blue", 1, Labels.ALL_TO_ONE, classes, images=images)
    (data / "poison.json").write_text(manifest.as_json())
    return data / "poison.json"


def test_what_is_found_is_said_beside_its_limit(fooled: Path, suspect_run: Path, capsys: Capture) -> None:
    assert main(["suspects", "data", *OURS, "-o", "new/list.json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    judged = {each.name: each for each in read_list(Path("new/list.json")).classes}
    blue = judged["blue"]
    assert lines[0] == f"blue: 20 of 100 images are listed (separation {blue.separation:.2f}, limit 0.40)."
    nearest = max(judged["green"], judged["red"], key=lambda each: each.separation)
    assert lines[1] == (
        "None of the other classes has images that are listed. Closest to its limit is "
        f"{nearest.name} (separation {nearest.separation:.2f}, limit 0.40)."
    )
    assert lines[2] == "The list is in new/list.json."
    assert read_suspects(Path("new/list.json")) == TRIGGERED


def test_nothing_found(suspect_set: Path, given: Callable[..., None], capsys: Capture) -> None:
    """A large separation below a larger limit is not the one that comes closest."""
    why = "A classifier that never saw them gives them the same label."
    classes = [JudgedClass("blue", 40, 0, 0.19, 0.33), JudgedClass("red", 900, 0, 0.12, 0.13, why)]
    given([*classes, JudgedClass("green", 7, 0, 0.9, 0.3, too_few=True)], set())
    assert main(["suspects", "data", "--detector", "given"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"No class has images that are listed. Closest to its limit is red (separation 0.12, limit 0.13). {why}",
        "These classes have too few images to be judged: green (7).",
        "The list is in suspects.json.",
        "No image is listed. This does not prove that the data are clean: see docs/detection.md.",
    ]


def test_the_reason_is_given_with_the_class_and_a_thousand_classes_are_cut_short(
    suspect_set: Path, given: Callable[..., None], capsys: Capture
) -> None:
    given([JudgedClass(f"c{n}", 10 + n, n, 0.9, 0.5, f"Reason {n}.") for n in range(1, 31)], {"blue/000.png"})
    assert main(["suspects", "data", "--detector", "given"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "c30: 30 of 40 images are listed (separation 0.90, limit 0.50). Reason 30."
    assert lines[20] == "10 more classes have listed images; all of them are in the list."


@pytest.mark.usefixtures("tiny_archs")
def test_the_advice_can_be_typed_as_it_stands(here: Path, fooled: Path, capsys: Capture) -> None:
    """It once ended with an error: on names with spaces, and where its outputs were there already."""
    vary_suspects(draw_suspects(here / "my data"), here / "my variations")
    model = checkpoints.load(fooled)
    checkpoints.save(here / "my teacher.pt", model.model, "bright-corner", model.class_to_idx, (16, 16), {})
    arguments = ["suspects", "my data", "--teacher", "my teacher.pt", "--variations", "my variations"]
    for anew in ("my teacher-anew.pt", "my teacher-anew-2.pt"):
        assert main([*arguments, "--detector", "variation-drop", "-o", "my list.csv", "--overwrite"]) == 0
        commands = advice(capsys.readouterr().out)
        assert [command[0] for command in commands] == ["train", "distill"]
        for command in commands:
            assert main(command) == 0, capsys.readouterr().err
        capsys.readouterr()
        trained = checkpoints.load(here / anew)
        assert trained.training["data"]["images"] == 3 * COUNT - len(TRIGGERED)
        assert trained.arch == "bright-corner"
        assert (here / anew.replace(".pt", "-student.pt")).is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_archs")
def test_without_a_teacher_and_variations_the_advice_makes_them(
    here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, given: Callable[..., None], capsys: Capture
) -> None:
    """Images of several sizes, a teacher.pt that is in the way, and a folder that is not a run where one would be."""
    monkeypatch.setenv("DIFFCLEAN_ENGINE", str(tiny_model))
    monkeypatch.setenv("DIFFCLEAN_TRAIN_ARCH", "tiny")
    for number in range(24):
        folder = here / "few" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        side = (24, 32)[number % 3 == 0]
        Image.new("RGB", (side, side), (number, 90, 7)).save(folder / f"{number}.png")
    (here / "teacher.pt").touch()
    (here / "few-variations").mkdir()
    given([JudgedClass("a", 12, 1, 0.9, 0.5)], {"a/0.png"})
    assert main(["suspects", "few", "--detector", "given"]) == 0
    commands = advice(capsys.readouterr().out)
    assert [command[0] for command in commands] == ["train", "variate", "distill"]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    assert (here / "teacher-2-student.pt").is_file()
    assert main(["suspects", "few", "--detector", "given", "--overwrite"]) == 0
    assert "few-variations-3" in capsys.readouterr().out


def test_variations_that_are_there_are_used(suspect_run: Path, given: Callable[..., None], capsys: Capture) -> None:
    given([JudgedClass("blue", COUNT, 1, 0.9, 0.5)], {"blue/000.png"})
    assert main(["suspects", "data", "--detector", "given"]) == 0
    train, distil = advice(capsys.readouterr().out)
    assert train == ["train", "data", "--without", "suspects.json", "-o", "teacher.pt"]
    assert distil[1:5] == ["--teacher", "teacher.pt", "--data", "data-variations"]


def test_a_class_that_is_listed_as_a_whole(suspect_set: Path, given: Callable[..., None], capsys: Capture) -> None:
    """No classifier can be trained on what is left, so no command is advised that would say so."""
    given([JudgedClass("red", COUNT, COUNT, 0.9, 0.5)], {f"red/{number:03d}.png" for number in range(COUNT)})
    assert main(["suspects", "data", "--detector", "given"]) == 0
    said = capsys.readouterr().out
    assert "Every image of red is listed" in said
    assert advice(said) == []
    assert main(["train", "data", "--without", "suspects.json", "-o", "t.pt"]) == 1


def test_beside_a_poison_manifest(fooled: Path, suspect_run: Path, capsys: Capture) -> None:
    manifest = str(manifest_of(Path("data")))
    assert main(["suspects", "data", *OURS, "--poison", manifest, "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)["against_manifest"]
    assert (told["recall"]["hits"], told["recall"]["count"], told["precision"]["value"]) == (20, 20, 1)
    assert (told["false_positive_rate"]["hits"], told["false_positive_rate"]["count"]) == (0, 279)
    assert (told["covers"]["count"], told["auroc"], told["unjudged"]) == (1, 1, 0)
    for line in (
        "Precision, the share of listed images that badnets poisoned: 100.0 % (95 %: 83.9-100.0, 20 images)",
        "Recall (TPR), the share of poisoned images that are listed: 100.0 %",
        "False positives (FPR), the share of clean images that are listed: 0.0 %",
        "Covers that are listed (the other figures do not count covers): 0.0 %",
        "AUROC of the scores: 1.0000",
    ):
        assert line in said.err


def test_json_says_all_that_was_found(fooled: Path, suspect_run: Path, capsys: Capture) -> None:
    assert main(["suspects", "data", *OURS, "--json", "--seed", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"out", "detector", "source", "images", "suspects", "classes", "failed"}
    assert (told["detector"], told["source"], told["images"], told["suspects"]) == ("variation-drop", "data", 300, 20)
    assert told["classes"][0] | {"separation": 0, "limit": 0} == {
        "name": "blue",
        "images": 100,
        "suspects": 20,
        "separation": 0,
        "limit": 0,
        "why": "",
        "too_few": False,
        "picture": "",
    }
    assert json.loads(Path("suspects.json").read_text())["settings"]["seed"] == 3


def test_a_dry_run_opens_everything_and_writes_nothing(
    here: Path, fooled: Path, suspect_run: Path, capsys: Capture
) -> None:
    before = sorted(here.rglob("*"))
    assert main(["suspects", "data", *OURS, "--dry-run"]) == 0
    assert "300 images in data would be judged by the detector variation-drop" in capsys.readouterr().out
    assert main(["suspects", "data", *OURS, "--dry-run", "--teacher", "data/blue/000.png"]) == 1
    assert main(["suspects", "data", *OURS, "--dry-run", "--variations", "nowhere"]) == 1
    assert sorted(here.rglob("*")) == before


def test_a_list_that_is_there_is_only_replaced_on_demand(suspect_set: Path, given: Callable[..., None]) -> None:
    given([JudgedClass("blue", COUNT, 1, 0.9, 0.5)], {"blue/000.png"})
    arguments = ["suspects", "data", "--detector", "given", "-o", "list.csv"]
    Path("list.csv").write_text("mine")
    assert main(arguments) == 1
    assert Path("list.csv").read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert read_suspects(Path("list.csv")) == {"blue/000.png"}


def test_images_that_cannot_be_judged_are_named(suspect_set: Path, given: Callable[..., None], capsys: Capture) -> None:
    (suspect_set / "red/000.png").write_bytes(b"nonsense")
    given([JudgedClass("red", COUNT, 0, 0.1, 0.5)], set())
    assert main(["suspects", "data", "--detector", "given"]) == 3
    assert "red/000.png: " in capsys.readouterr().out


def test_a_teacher_alone_works_as_it_did(fooled: Path, suspect_run: Path, capsys: Capture) -> None:
    """The one *-variations folder here, the data that it was made from, and the detector that there was then."""
    assert main(["suspects", "--teacher", "fooled.pt", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["detector"], told["suspects"]) == ("variation-drop", 20)
    assert told["source"] == str(Path("data").absolute())
    assert "is now called" not in said.err


@pytest.mark.slow
def test_former_spellings_work_and_say_the_present_ones(
    fooled: Path, suspect_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    Path("data-variations").rename("made")
    Path("data").rename("moved")
    assert main(["suspects", "--teacher", "fooled.pt", "--data", "made", "--originals", "moved", "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert (told["detector"], told["suspects"], told["source"]) == ("variation-drop", 20, "moved")
    assert "--data is now called --variations." in said.err
    assert "--originals is now called DATA." in said.err
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["suspects", "--help"]) == 0
    helped = capsys.readouterr().out
    assert "--originals" not in helped
    assert "--data " not in helped


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--detector", "given"], 2, "Name the suspect data set: diffclean suspects DATA"),
        (["nowhere", "--detector", "given"], 1, "There is no folder nowhere."),
        (["data", "--detector", "crystal-ball"], 2, "There is no detector 'crystal-ball'."),
        (["data", "--detector", "variation-drop"], 2, "needs a teacher (--teacher t.pt"),
        (
            ["data", "--detector", "given", "--teacher-arch", "wrn-16-1"],
            2,
            "--teacher-arch was given without a teacher.",
        ),
        (["data", "--originals", "data", "--detector", "given"], 2, "--originals is the former name of DATA"),
        (["data", "--detector", "given", "--poison", "poison.json"], 1, "poison.json"),
        (["data", "--teacher", "nowhere.pt", "--detector", "variation-drop"], 1, "nowhere.pt"),
    ],
)
def test_mistakes(
    arguments: list[str], code: int, message: str, suspect_run: Path, given: Callable[..., None], capsys: Capture
) -> None:
    given([], set())
    assert main(["suspects", *arguments]) == code
    assert message in capsys.readouterr().err
    assert not Path("suspects.json").exists()


def test_several_folders_of_variations(fooled: Path, suspect_run: Path, capsys: Capture) -> None:
    Path("b-variations").mkdir()
    assert main(["suspects", "--teacher", "fooled.pt"]) == 1
    assert "Name one, for example: --variations b-variations" in capsys.readouterr().err


def honest(fooled: Path) -> Path:
    """`fooled.pt` without its backdoor: colours weigh more than the trigger."""
    model = checkpoints.load(fooled)
    with torch.no_grad():
        model.model.get_parameter("net.scale").fill_(50)
    checkpoints.save(Path("honest.pt"), model.model, model.arch, model.class_to_idx, model.size, {})
    return Path("honest.pt")


def test_a_second_pass_lists_what_the_first_list_missed(suspect_set: Path, fooled: Path, capsys: Capture) -> None:
    half = sorted(TRIGGERED)[::2]
    Path("first.json").write_text(json.dumps([*half, "red/000.png"]))
    command = ["suspects", "data", "--teacher", "fooled.pt", "--retrained", str(honest(fooled))]
    assert main([*command, "--list", "first.json", "-o", "second.json"]) == 0
    said = capsys.readouterr().out
    assert read_suspects(Path("second.json")) == {*TRIGGERED, "red/000.png"}
    blue, red = said.splitlines()[:2]
    assert blue.startswith("blue: 20 of 100 images are listed")
    assert blue.endswith("New among them: 10.")
    assert red.endswith("New among them: 0.")
    train, again, *_ = advice(said)
    assert train[:6] == ["train", "data", "--without", "second.json", "-o", "fooled-anew.pt"]
    assert again == [*command[:4], "--retrained", "fooled-anew.pt", "--list", "second.json", "-o", "second-2.json"]
    assert main([*command, "--list", "second.json", "-o", "third.json"]) == 0
    said = capsys.readouterr().out
    assert "No image is new on this list, so honest.pt need not be trained again." in said
    assert (advice(said), read_suspects(Path("third.json"))) == ([], {*TRIGGERED, "red/000.png"})


def test_what_a_second_pass_needs_is_said_before_any_work(suspect_set: Path, fooled: Path, capsys: Capture) -> None:
    retrained = ["--retrained", str(honest(fooled))]
    Path("first.json").write_text(json.dumps(["blue/000.png"]))
    Path("others.json").write_text(json.dumps(["cat/1.png"]))
    command = ["suspects", "data", "--teacher", "fooled.pt"]
    for options, code, message in (
        (retrained, 2, "needs a list of suspects (--list suspects.json)"),
        (["--detector", "logit-difference", "--list", "first.json"], 2, "(--retrained MODEL)"),
        ([*retrained, "--list", "first.json", "--detector", "isolate"], 2, "isolate does not use --retrained"),
        ([*retrained, "--list", "none.json"], 1, "none.json cannot be read"),
    ):
        assert main([*command, *options, "--dry-run"]) == code
        assert message in capsys.readouterr().err
    assert main([*command, *retrained, "--list", "others.json"]) == 2
    assert "The list of suspects does not belong to data: none of its images is on it." in capsys.readouterr().err
    assert main([*command, *retrained, "--list", "first.json", "--dry-run"]) == 0
    assert "by the detector logit-difference" in capsys.readouterr().out
    (suspect_set / "red").rename(suspect_set / "purple")
    assert main([*command, *retrained, "--list", "first.json", "--dry-run"]) == 2
    assert "only the classifier knows red" in capsys.readouterr().err
