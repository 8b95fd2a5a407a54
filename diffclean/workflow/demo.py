"""The demonstration: draw road signs, poison them, and do the whole job (`clean`) on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from diffclean.attacks.manifest import MANIFEST_FILE
from diffclean.attacks.registry import get
from diffclean.data.atomic import make_folders
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import NoProgress, Progress
from diffclean.workflow.clean import CleanResult, clean
from diffclean.workflow.clean_config import CleanConfig
from diffclean.workflow.prepare import prepare
from diffclean.workflow.runner import Runner
from diffclean.workflow.scenes import draw_data_set
from diffclean.workflow.signs import FACES
from diffclean.workflow.steps import Hands


@dataclass(frozen=True)
class DemoConfig:
    """The settings of the demo.

    Attributes:
        out: the folder for the data sets and for the job. What is done there is not done again.
        train_images: the number of training images per class.
        test_images: the number of test images per class.
        size: the side of the pictures in pixels.
        attack: the name of an attack in `attacks.registry`.
        rate: the poison rate.
        target: the target class.
        arch: the architecture of teacher and student.
        epochs: the number of epochs of each training.
        engine: the engine that regenerates the pictures.
        seed: the seed of everything that is random.
    """

    out: Path
    train_images: int = 100
    test_images: int = 40
    size: int = 32
    attack: str = "badnets"
    rate: float = 0.1
    target: str = "limit-80"
    arch: str = "resnet8-cifar"
    epochs: int = 12
    engine: str = "micro"
    seed: int = 1


@dataclass(frozen=True)
class _Folders:
    """The folders of the demonstration."""

    out: Path

    @property
    def signs(self) -> Path:
        return self.out / "signs"

    @property
    def poisoned(self) -> Path:
        return self.out / "signs-poisoned"

    @property
    def job(self) -> Path:
        return self.out / "signs-poisoned-clean"


def demo(config: DemoConfig, progress: Progress | None = None, stop: Event | None = None) -> CleanResult:
    """Run the demonstration in `config.out`.

    If the attack does not work on the teacher, the report says so: there was nothing to defend against.

    Raises:
        UsageError: there is no such attack, architecture or sign.
        DiffcleanError: a step failed; the folder holds something else.
        Interrupted: `stop` was set; the same call continues with the interrupted step.
    """
    from diffclean.classifiers.networks import check_arch

    get(config.attack)  # Mistakes are reported before any work.
    check_arch(config.arch)
    if config.target not in FACES:
        raise UsageError(f"There is no sign {config.target!r}.", f"There are: {', '.join(FACES)}.")
    hands = Hands(progress or NoProgress(), stop or Event())
    runner, folders = Runner(hands), _Folders(config.out)
    runner.do("draw", lambda: _draw(config, folders.signs, hands))
    runner.do("poison", lambda: _poison(config, folders, hands), folders.poisoned)
    return clean(prepare(_job(config, folders), hands), hands, command=f"diffclean demo -o {config.out}")


def _job(config: DemoConfig, folders: _Folders) -> CleanConfig:
    return CleanConfig(
        data=folders.poisoned,
        out=folders.job,
        test=folders.signs / "test",
        poison=folders.poisoned / MANIFEST_FILE,
        arch=config.arch,
        epochs=config.epochs,
        engine=config.engine,
        augment=False,  # Nothing is mirrored: a sign that points left would point right.
        self_test=False,  # The attack is known, and a demonstration should take minutes.
        seed=config.seed,
    )


def _draw(config: DemoConfig, signs: Path, hands: Hands) -> None:
    """Draw the data set, unless it is complete already."""
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
    """Make a copy of the training set with the trigger on some pictures."""
    from diffclean.attacks.plan import training_plan
    from diffclean.attacks.poison import write

    plan = training_plan(folders.signs / "train", config.attack, config.rate, config.target, config.seed)
    write(plan, folders.poisoned, hands.progress, hands.stop)
