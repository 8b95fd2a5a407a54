"""`diffclean.find_suspects`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, Colour, classifier_file, following, path_of
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.suspects import SUSPECTS_FILE
from diffclean.errors import DiffcleanError, UsageError
from diffclean.progress import Progress

if TYPE_CHECKING:
    from diffclean.workflow.suspects import FoundSuspects

SEED = 1


def find_suspects(
    data: AnyPath | None = None,
    *,
    detector: str | None = None,
    teacher: AnyPath | None = None,
    variations: AnyPath | None = None,
    out: AnyPath | None = SUSPECTS_FILE,
    overwrite: bool = False,
    poison: AnyPath | None = None,
    size: int | None = None,
    seed: int = SEED,
    teacher_arch: str | None = ClassifierFile.arch,
    teacher_classes: AnyPath | None = ClassifierFile.classes,
    teacher_mean: Colour | None = ClassifierFile.mean,
    teacher_std: Colour | None = ClassifierFile.std,
    teacher_size: int | None = ClassifierFile.size,
    device: str | None = None,
    progress: bool | Progress = True,
    stop: Event | None = None,
) -> FoundSuspects:
    """Find the poisoned images of a suspect training set, and write the list of them.

    That nothing is listed is no proof that the data are clean: docs/detection.md says what cannot be found. What is
    told of a teacher beside its file is as in `distill`.

    Args:
        data: the training set, one folder of images a class; None: what `variations` was made from.
        detector: how poisoned images are looked for, see docs/detection.md; None: "isolate", or "variation-drop" where
            a teacher is named and `data` is not.
        teacher: a classifier that was trained on the data as they are; some detectors need one.
        variations: what `variate` made of the data; some detectors need it. None: the one `*-variations` in the current
            directory, where the detector needs one.
        out: the list, for `without` of `train` and `distill`; a name that ends in .csv makes it a CSV file. None: it is
            not written.
        overwrite: replace `out` where it exists.
        poison: the poison manifest of the data, where you poisoned them yourself: the list is compared with it.
        size: side in pixels at which images are looked at; None: the teacher's, else as they are up to 64.
        seed: of everything that is random.
        device: "cpu", "cuda", "cuda:1"; None: CUDA where it works, else the CPU.
        progress: whether a bar is drawn, or a `Progress` to be told.
        stop: set by someone who wants the work to end.

    Raises:
        UsageError: there is no such detector, or it needs what was not given.
        DiffcleanError: a file or folder cannot be read, or `out` exists.
        Interrupted: `stop` was set.
    """
    about = {name: value for name, value in locals().items() if name.startswith("teacher_")}
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.detection.find import find_suspects as work
    from diffclean.workflow.suspects import found_suspects

    asked = request(data, detector, teacher, variations, about)
    place = path_of(out)
    check_new(place, overwrite)
    if poison is not None:
        read_poison_manifest(path_of(poison))  # what is wrong with it is said before any work
    with following(progress) as shown:
        found = work(asked.data, asked.detector, asked.teacher, asked.variations, size, device, seed, shown, stop)
    if place is not None:
        found.write(place)
    return found_suspects(found, place, path_of(poison))


@dataclass(frozen=True)
class Request:
    """What is judged, by which detector, with what.

    Attributes:
        data: the training set; None: what the variations were made from.
        detector: a detector's name.
        teacher: for detectors that need one.
        variations: the same.
    """

    data: Path | None
    detector: str
    teacher: ClassifierFile | None
    variations: Path | None


def request(
    data: AnyPath | None,
    detector: str | None,
    teacher: AnyPath | None,
    variations: AnyPath | None,
    about: dict[str, Any],
) -> Request:
    """What was asked for, with the defaults that depend on each other filled in.

    Raises:
        UsageError: no such detector; something is told of a teacher, and no teacher is given.
        DiffcleanError: variations are needed, and none or several are here.
    """
    from diffclean.datasets.variations import find_variations
    from diffclean.detection.find import DEFAULT_DETECTOR
    from diffclean.detection.registry import get

    described = [name for name, value in about.items() if value is not None]
    if teacher is None and described:
        raise UsageError(f"`{described[0]}` was given, and no teacher.", "Give a `teacher` as well.")
    only_a_teacher = teacher is not None and data is None
    name = detector or ("variation-drop" if only_a_teacher else DEFAULT_DETECTOR)
    looks = path_of(variations)
    if looks is None and get(name).needs_variations:
        looks = find_variations(Path(), "`variations`")
    config = classifier_file(teacher, dict(about), "teacher") if teacher is not None else None
    return Request(path_of(data), name, config, looks)


def check_new(out: Path | None, overwrite: bool) -> None:
    """Refuse to write over a list that is there.

    Raises:
        DiffcleanError: it is there.
    """
    if out is not None and out.exists() and not overwrite:
        raise DiffcleanError(f"{out} exists.", "Give `overwrite` to replace it, or name another `out`.")
