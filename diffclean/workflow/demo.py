"""The demonstration: draw road signs, poison them, run the whole job on them, and show what it achieves."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from diffclean.attacks.manifest import MANIFEST_FILE, PoisonManifest, read_poison_manifest
from diffclean.attacks.registry import get
from diffclean.data.atomic import make_folders
from diffclean.data.keys import path_from_key
from diffclean.errors import DiffcleanError, UsageError
from diffclean.evaluation.evaluate import Evaluation
from diffclean.evaluation.variation_run import RunEvaluation
from diffclean.progress import NoProgress, Progress
from diffclean.training.loop_config import LoopConfig
from diffclean.variation.settings import Settings
from diffclean.workflow import steps
from diffclean.workflow.chain import Chain, Places, Runner, run_chain, train_first
from diffclean.workflow.page import Example, write_page
from diffclean.workflow.scenes import draw_data_set
from diffclean.workflow.signs import FACES
from diffclean.workflow.steps import Distilling, Hands, Teaching

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


@dataclass(frozen=True)
class _Folders:
    """Where the demonstration keeps what it makes."""

    out: Path

    @property
    def signs(self) -> Path:
        return self.out / "signs"

    @property
    def poisoned(self) -> Path:
        return self.out / "signs-poisoned"

    @property
    def places(self) -> Places:
        names = {"variations": self.out / "signs-poisoned-variations"}
        return replace(Places.below(self.out), **names)


def demo(config: DemoConfig, progress: Progress | None = None, stop: Event | None = None) -> DemoResult:
    """Run the demonstration in `config.out`.

    Raises:
        DiffcleanError: a step failed, or the attack did not fire on the teacher: then the rest would show nothing.
        Interrupted: `stop` was set; the same call goes on with the step that was interrupted.
    """
    from diffclean.classifiers.networks import check_arch

    get(config.attack)  # what is wrong is said before any work
    check_arch(config.arch)
    if config.target not in FACES:
        raise UsageError(f"There is no sign {config.target!r}.", f"There are: {', '.join(FACES)}.")
    hands = Hands(progress or NoProgress(), stop or Event())
    runner, folders = Runner(hands), _Folders(config.out)
    runner.do("draw", lambda: _draw(config, folders.signs, hands))
    runner.do("poison", lambda: _poison(config, folders, hands), folders.poisoned)
    chain, places = _chain(config, folders), folders.places
    train_first(chain, places, runner)
    assert chain.test is not None
    teacher = steps.measure(places.teacher, chain.test, chain.poison, hands)
    if not teacher.fired:
        raise DiffcleanError(
            f"The attack did not fire: the teacher's attack success rate is {teacher.attack_success_rate}.",
            "There is nothing to defend against here. More `epochs` or another `seed` may help, with another `out`.",
        )
    done = run_chain(chain, places, runner)
    assert done.student is not None
    run = steps.measure_variations(places.teacher, places.variations, hands)
    result = DemoResult(config.out / "demo.html", teacher, done.student, run, runner.seconds)
    _show(config, folders, result)
    return result


def _chain(config: DemoConfig, folders: _Folders) -> Chain:
    # Nothing is mirrored: a sign to the left would become one to the right.
    loop = LoopConfig(epochs=config.epochs, augment=False, seed=config.seed, tensorboard=False)
    return Chain(
        data=folders.poisoned,
        teaching=Teaching(config.arch, loop),
        distilling=Distilling(loop=loop),
        settings=Settings(engine=config.engine, seed=config.seed),
        test=folders.signs / "test",
        poison=folders.poisoned / MANIFEST_FILE,
    )


def _draw(config: DemoConfig, signs: Path, hands: Hands) -> None:
    """The data set; drawn anew where it is not whole."""
    begun, whole = signs / ".drawing", signs / ".drawn"
    said = f"{replace(config, out=Path())}"
    known = [path.read_text() for path in (begun, whole) if path.is_file()]
    if signs.exists() and said not in known:
        raise DiffcleanError(
            f"{config.out} holds a demo with other settings, or something else.",
            "Choose another folder with `out`, or empty this one.",
        )
    if whole.is_file():
        return
    make_folders(signs)
    begun.write_text(said)
    for split, count in {"train": config.train_images, "test": config.test_images}.items():
        draw_data_set(signs, split, count, config.size, config.seed, hands.progress)
    begun.replace(whole)


def _poison(config: DemoConfig, folders: _Folders, hands: Hands) -> None:
    """A copy of the training set with the trigger on some pictures."""
    from diffclean.attacks.plan import training_plan
    from diffclean.attacks.poison import write

    plan = training_plan(folders.signs / "train", config.attack, config.rate, config.target, config.seed)
    write(plan, folders.poisoned, hands.progress, hands.stop)


def _show(config: DemoConfig, folders: _Folders, result: DemoResult) -> None:
    """Write the page."""
    manifest = read_poison_manifest(folders.poisoned)
    write_page(
        result.page,
        "diffclean: a poisoned teacher and a clean student",
        TABLE_HEAD,
        table(result),
        notes(config, manifest, result),
        _examples(manifest, folders),
    )


def _examples(manifest: PoisonManifest, folders: _Folders) -> list[Example]:
    poisoned = [image for image in manifest.images if image.poisoned]
    clean = [image for image in manifest.images if not image.poisoned]
    chosen = [*poisoned[:: max(1, len(poisoned) // SHOWN)][:SHOWN], *clean[:: max(1, len(clean) // SHOWN)][:SHOWN]]
    examples = []
    for image in chosen:
        said = f"{image.label}, triggered, labelled {image.target}" if image.poisoned else image.label
        output = path_from_key(image.output)
        varied = folders.places.variations / output.with_name(f"{output.stem}_v00.png")
        paths = (folders.signs / "train" / path_from_key(image.key), folders.poisoned / output, varied)
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
