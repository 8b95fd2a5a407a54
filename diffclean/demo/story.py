"""The demo's steps: draw a data set, poison it, train the teacher, vary, distil, measure, show."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.attacks.manifest import MANIFEST_FILE, PoisonManifest, read_manifest
from diffclean.attacks.registry import get
from diffclean.data.atomic import make_folders
from diffclean.data.keys import path_from_key
from diffclean.errors import DiffcleanError, Interrupted, UsageError
from diffclean.progress import NoProgress, Progress

if TYPE_CHECKING:
    from diffclean.evaluation.evaluate import Evaluation
    from diffclean.evaluation.variation_run import RunEvaluation

log = logging.getLogger(__name__)

SHOWN = 12


@dataclass(frozen=True)
class DemoConfig:
    """What the demo does.

    Attributes:
        out: its folder: data sets, models, log and page; a step whose outcome lies there is not done again.
        train_images: a class.
        test_images: a class.
        size: of the pictures, in pixels.
        attack: as in `attacks.registry`.
        rate: poison rate.
        target: the class that the trigger stands for.
        arch: of teacher and student.
        epochs: of both.
        engine: that regenerates the pictures.
        seed: of everything.
    """

    out: Path
    train_images: int = 100
    test_images: int = 40
    size: int = 48
    attack: str = "badnets"
    rate: float = 0.1
    target: str = "limit-80"
    arch: str = "resnet8-cifar"
    epochs: int = 12
    engine: str = "micro"
    seed: int = 1


@dataclass(frozen=True)
class DemoResult:
    """What came out.

    Attributes:
        page: the HTML page.
        teacher: see `evaluation.evaluate`.
        student: the same, measured against the teacher.
        run: see `evaluation.variation_run`.
        seconds: a step, those that were done now.
    """

    page: Path
    teacher: Evaluation
    student: Evaluation
    run: RunEvaluation
    seconds: dict[str, float]


def demo(config: DemoConfig, progress: Progress | None = None, stop: Event | None = None) -> DemoResult:
    """Tell the whole story in `config.out`.

    Raises:
        DiffcleanError: a step failed, or the attack did not fire on the teacher: then the rest would show nothing.
        Interrupted: `stop` was set; the same call goes on with the step that was interrupted.
    """
    from diffclean.classifiers.networks import check_arch
    from diffclean.demo.signs import FACES
    from diffclean.evaluation.evaluate import evaluate
    from diffclean.evaluation.variation_run import evaluate_run

    progress, stop = progress or NoProgress(), stop or Event()
    get(config.attack)  # what is wrong is said before any work
    check_arch(config.arch)
    if config.target not in FACES:
        raise UsageError(f"There is no sign {config.target!r}.", f"There are: {', '.join(FACES)}.")
    story = _Story(config, progress, stop)
    story.step("draw", story.draw)
    story.step("poison", story.poison)
    story.step("train the teacher", story.train)
    manifest = story.poisoned / MANIFEST_FILE
    teacher = evaluate(story.teacher, story.test, manifest, progress=progress)
    if not teacher.fired:
        assert teacher.attack_success_rate is not None
        raise DiffcleanError(
            f"The attack did not fire: the teacher's ASR is {100 * teacher.attack_success_rate.value:.1f} %.",
            "There is nothing to defend against here. More --epochs or another --seed may help, with another -o.",
        )
    story.step("vary", story.vary)
    story.step("distil the student", story.distil)
    student = evaluate(story.student, story.test, manifest, story.teacher, progress=progress)
    run = evaluate_run(story.teacher, story.variations, progress=progress)
    page = config.out / "demo.html"
    result = DemoResult(page, teacher, student, run, story.seconds)
    story.show(result)
    return result


class _Story:
    """The steps and where their outcomes lie."""

    def __init__(self, config: DemoConfig, progress: Progress, stop: Event) -> None:
        self.config, self.progress, self.stop = config, progress, stop
        self.seconds: dict[str, float] = {}
        self.signs = config.out / "signs"
        self.train_set, self.test = self.signs / "train", self.signs / "test"
        self.poisoned = config.out / "signs-poisoned"
        self.variations = config.out / "signs-poisoned-variations"
        self.teacher, self.student = config.out / "teacher.pt", config.out / "student.pt"

    def step(self, name: str, work: Callable[[], None]) -> None:
        """Do one step and time it."""
        if self.stop.is_set():
            raise Interrupted("Interrupted.", "The same command goes on from here.")
        started = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - started, 1)
        log.info("%s: %.0f s.", name.capitalize(), self.seconds[name])

    def draw(self) -> None:
        """The data set; drawn anew where it is not whole."""
        from diffclean.demo.scenes import draw_data_set

        begun, whole = self.signs / ".drawing", self.signs / ".drawn"
        said = f"{replace(self.config, out=Path())}"
        known = [path.read_text() for path in (begun, whole) if path.is_file()]
        if self.signs.exists() and said not in known:
            raise DiffcleanError(
                f"{self.config.out} holds a demo with other settings, or something else.",
                "Choose another folder with -o, or empty this one.",
            )
        if whole.is_file():
            return
        make_folders(self.signs)
        begun.write_text(said)
        sizes = {"train": self.config.train_images, "test": self.config.test_images}
        for split, count in sizes.items():
            draw_data_set(self.signs, split, count, self.config.size, self.config.seed, self.progress)
        begun.replace(whole)

    def poison(self) -> None:
        """A copy with the trigger on some pictures."""
        from diffclean.attacks.plan import training_plan
        from diffclean.attacks.poison import write

        if not self.poisoned.exists():
            config = self.config
            plan = training_plan(self.train_set, config.attack, config.rate, config.target, config.seed)
            write(plan, self.poisoned, self.progress, self.stop)

    def train(self) -> None:
        """The teacher, on the poisoned copy as it is."""
        from diffclean.training.train import train
        from diffclean.training.train_config import TrainConfig

        if not self.teacher.exists():
            config = TrainConfig(self.poisoned, self.teacher, arch=self.config.arch, loop=self._loop())
            train(config, self.progress, self.stop)

    def vary(self) -> None:
        """Every picture regenerated."""
        from diffclean.variation.settings import Settings
        from diffclean.variation.variate import variate

        settings = Settings(engine=self.config.engine, seed=self.config.seed)
        variate(self.poisoned, self.variations, settings, progress=self.progress, stop=self.stop)

    def distil(self) -> None:
        """The student, on the variations alone."""
        from diffclean.classifiers.teacher_config import TeacherConfig
        from diffclean.training.distill import distill
        from diffclean.training.distill_config import DistillConfig

        if not self.student.exists():
            config = DistillConfig(TeacherConfig(self.teacher), self.variations, self.student, loop=self._loop())
            distill(config, self.progress, self.stop)

    def _loop(self) -> Any:
        from diffclean.training.loop_config import LoopConfig

        # Nothing is mirrored: a sign to the left would become one to the right.
        return LoopConfig(epochs=self.config.epochs, augment=False, seed=self.config.seed, tensorboard=False)

    def show(self, result: DemoResult) -> None:
        """The page."""
        from diffclean.demo.page import write_page

        manifest = read_manifest(self.poisoned)
        write_page(
            result.page,
            "diffclean: a poisoned teacher and a clean student",
            TABLE_HEAD,
            table(result),
            notes(self.config, manifest, result),
            self._examples(manifest),
        )

    def _examples(self, manifest: PoisonManifest) -> list[Any]:
        from diffclean.demo.page import Example

        poisoned = [image for image in manifest.images if image.poisoned]
        clean = [image for image in manifest.images if not image.poisoned]
        chosen = [*poisoned[:: max(1, len(poisoned) // SHOWN)][:SHOWN], *clean[:: max(1, len(clean) // SHOWN)][:SHOWN]]
        examples = []
        for image in chosen:
            said = f"{image.label}, triggered, labelled {image.target}" if image.poisoned else image.label
            output = path_from_key(image.output)
            varied = self.variations / output.with_name(f"{output.stem}_v00.png")
            paths = (self.train_set / path_from_key(image.key), self.poisoned / output, varied)
            if all(path.is_file() for path in paths):
                examples.append(Example(said, paths))
        return examples


TABLE_HEAD = ("", "Clean accuracy", "Attack success", "Robust accuracy")


def table(result: DemoResult) -> list[list[str]]:
    """Teacher and student, in percent."""
    names = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
    rows = {"teacher, on the poisoned data": result.teacher, "student, on the variations": result.student}
    return [[title, *(f"{100 * getattr(row, name).value:.1f} %" for name in names)] for title, row in rows.items()]


def notes(config: DemoConfig, manifest: PoisonManifest, result: DemoResult) -> list[str]:
    """What was done and measured, in sentences."""
    count = sum(image.poisoned for image in manifest.images)
    kept, left = result.run.label_preservation, result.run.trigger_survival
    assert kept is not None
    assert left is not None
    return [
        f"{len(manifest.images)} drawn road signs of {len(manifest.class_to_idx)} classes; {count} of them carry the "
        f"trigger of {config.attack} and the label {config.target}. Teacher and student are {config.arch}, "
        f"{config.epochs} epochs, seed {config.seed}.",
        f"Of triggered pictures of other classes, the teacher takes {100 * left.triggered.value:.1f} % of the "
        f"variations for {config.target}; of untriggered ones {100 * left.untriggered.value:.1f} %. "
        f"Label preservation {kept.preservation:.3f}, by the teacher.",
        f"Defence effectiveness (DER) {result.student.defense_effectiveness:.3f}; "
        "0.5 is nothing gained, 1 is all of the attack gone and no accuracy lost.",
        "One seed on drawn pictures: a demonstration, not evidence. For that, see benchmarks/ in the repository.",
    ]
