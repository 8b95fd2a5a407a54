"""`diffclean.clean`."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, Colour, classifier_file, data_path_of, following, path_of, with_paths
from diffclean.api.variate import beside
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.address import is_address
from diffclean.errors import UsageError
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.workflow.clean import CleanResult
    from diffclean.workflow.clean_config import CleanConfig


def clean(
    data: AnyPath,
    out: AnyPath | None = None,
    *,
    test: AnyPath | None = None,
    poison: AnyPath | None = None,
    teacher: AnyPath | None = None,
    teacher_arch: str | None = ClassifierFile.arch,
    teacher_classes: AnyPath | None = ClassifierFile.classes,
    teacher_mean: Colour | None = ClassifierFile.mean,
    teacher_std: Colour | None = ClassifierFile.std,
    teacher_size: int | None = ClassifierFile.size,
    arch: str = "auto",
    size: int | None = None,
    epochs: int | None = None,
    engine: str = "micro",
    strength: float | None = None,
    variations: int | None = None,
    detector: str = "isolate",
    second_pass: bool | None = None,
    augment: bool = True,
    flip: str | None = None,
    cleaned: str = "originals",
    self_test: bool | None = None,
    budget: str | None = None,
    max_asr: float | None = None,
    max_loss: float | None = None,
    from_step: str | None = None,
    price_per_hour: float | None = None,
    currency: str = "",
    seed: int = 1,
    device: str | None = None,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> CleanResult:
    """Do the whole job: find what is poisoned, train a clean student, and write a report.

    Everything lies in `out`. A job that was stopped goes on when the same is called again, and does only what is left
    or has changed. Of arguments that are not described here, `docs/clean.md` tells more.

    Args:
        data: the suspect training set: one folder of images a class, or a data set in another format of
            docs/formats.md, which may lie in a bucket.
        out: the folder of the job, which is on this machine; None: `data` with `-clean` added to its name, as `variate`
            names its output. For data in a bucket, this folder is made in the current directory.
        test: a clean test set with the same classes, for accuracies; it may lie in a bucket.
        poison: the poison manifest of the data, where you poisoned them yourself: adds attack success rates.
        teacher: a classifier that was trained on the data as they are; None: one is trained. What is told of it beside
            its file is as in `distill`.
        arch: of teacher and student, as in `train`; "auto": by the size and number of the images.
        size: side in pixels that classifiers see; None: by the images and the machine.
        epochs: of each training; None: by the number of images.
        engine: as in `variate`.
        strength: as in `variate`; None: the engine's.
        variations: of each image; None: by their number.
        detector: as in `find_suspects`.
        second_pass: look for suspects that the detector missed, once a teacher was trained without its list;
            None: where there is time for it.
        augment: random crops and flips.
        flip: how training mirrors images, as in `train`; None: as suits the architecture, or not at all if a first look
            shows that classes become something else in the mirror.
        cleaned: what the cleaned data set holds: "originals", "variations", or "none" for no such folder.
        self_test: poison a part of the data as a test; None: where there is time for it.
        budget: how long all of it may take, such as "2h"; None: no limit.
        max_asr: the gate: the highest attack success rate in percent.
        max_loss: the gate: the largest loss of clean accuracy in percentage points.
        from_step: do this stage and all later ones again: teacher, suspects, teacher-anew, variations, student,
            evaluation, self-test or outputs.
        price_per_hour: of this machine, for the report.
        currency: of that price.
        seed: of everything that is random.
        device: of the classifiers and detectors: "cpu", "cuda", "cuda:1"; None: CUDA where it works, else the CPU.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the work to end.

    Raises:
        UsageError: a setting makes no sense, or test set, manifest or teacher do not go with the data.
        DiffcleanError: the data cannot be used, or a step cannot be done.
        Interrupted: `stop` was set; the same call goes on.
    """
    options = dict(locals())
    del options["progress"], options["stop"]
    from diffclean.workflow.clean import clean as work
    from diffclean.workflow.prepare import prepare
    from diffclean.workflow.steps import Hands

    with following(progress) as shown:
        hands = Hands(shown, stop)
        return work(prepare(clean_config(**options), hands), hands)


def clean_config(
    data: AnyPath, out: AnyPath | None, teacher: AnyPath | None, budget: str | None, **options: Any
) -> CleanConfig:
    """The configuration of the job, from the arguments of `clean`."""
    from diffclean.workflow.clean_config import CleanConfig, seconds_of

    about = {name: options[name] for name in options if name.startswith("teacher_")}
    given = [name for name, value in about.items() if value is not None]
    if teacher is None and given:
        raise UsageError(f"`{given[0]}` was given, and no teacher.", "Give a `teacher` as well.")
    config = classifier_file(teacher or "", options, "teacher")  # takes them out of the options
    folder = data_path_of(data)
    return CleanConfig(
        data=folder,
        out=path_of(out) or _usual_out(folder),
        test=data_path_of(options.pop("test", None)),
        teacher=config if teacher is not None else None,
        budget_s=seconds_of(budget) if budget else None,
        **with_paths(options, "poison"),
    )


def _usual_out(data: Path) -> Path:
    """`data` with `-clean` added. For data in a bucket this is a folder here, because the job lies on this machine."""
    place = beside(data, "clean")
    return Path(place.name) if is_address(data) else place
