"""`diffclean.find_suspects`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from diffclean.api.common import AnyPath, Colour, classifier_file, data_path_of, following, path_of
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.data.suspects import SUSPECTS_FILE, SuspectList, read_list
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
    retrained: AnyPath | None = None,
    first_list: AnyPath | None = None,
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
    """Find the poisoned images of a suspect training set, and write a list of them.

    An empty list does not prove that the data are clean: docs/detection.md says what cannot be found. The `teacher_`
    arguments describe a teacher as in `distill`.

    Args:
        data: the training set, which has one folder of images for each class; None stands for what `variations` was
            made from.
        detector: the name of the detector, see docs/detection.md; None stands for "isolate", for "logit-difference" if
            `retrained` is given, or for "variation-drop" if a teacher is given and `data` is not.
        teacher: a classifier that was trained on the data; some detectors need one.
        variations: the variations that `variate` made of the data, on disk or in a bucket; some detectors need them.
            None stands for the only `*-variations` folder in the current directory, if the detector needs one.
        retrained: a classifier that was trained like the teacher, but without the suspects on `first_list`; for the
            detector "logit-difference", which compares both.
        first_list: an earlier list of suspects of the same data; its suspects are also on the new list.
        out: the file of the list, which `without` of `train` and `distill` reads; it is CSV if its name ends in .csv.
            None writes no file.
        overwrite: whether `out` is replaced if it exists.
        poison: the poison manifest of the data, if you poisoned it yourself; the list is compared with it.
        size: the side in pixels to which images are resized; None stands for the teacher's, else for the size of the
            images up to 64.
        seed: the seed of everything that is random.
        device: "cpu", "cuda", or one GPU such as "cuda:1"; None stands for CUDA where it works, else the CPU.
        progress: whether a bar is drawn, or a `Progress` to report to.
        stop: set this event to stop the work.

    Raises:
        UsageError: there is no such detector, or it needs something that was not given.
        DiffcleanError: a file or folder cannot be read, or `out` exists.
        Interrupted: `stop` was set.
    """
    about = {name: value for name, value in locals().items() if name.startswith("teacher_")}
    from diffclean.attacks.manifest import read_poison_manifest
    from diffclean.detection.find import find_suspects as work
    from diffclean.workflow.suspects import found_suspects

    asked = request(data, detector, teacher, variations, about, retrained, first_list)
    place = path_of(out)
    check_new(place, overwrite)
    if poison is not None:
        read_poison_manifest(path_of(poison))  # a manifest that cannot be used is reported before any work
    with following(progress) as shown:
        given = asked.data, asked.detector, asked.teacher, asked.variations
        found = work(*given, size, device, seed, shown, stop, asked.retrained, asked.first)
    if place is not None:
        found.write(place)
    return found_suspects(found, place, path_of(poison))


@dataclass(frozen=True)
class Request:
    """The data, the detector, and what the detector needs.

    Attributes:
        data: the training set; None stands for what the variations were made from.
        detector: the name of the detector.
        teacher: the teacher, for detectors that need one.
        variations: the variations, for detectors that need them.
        retrained: the teacher that was trained without the suspects on `first`, for the detector that needs it.
        first: an earlier list of suspects.
    """

    data: Path | None
    detector: str
    teacher: ClassifierFile | None
    variations: Path | None
    retrained: Path | None
    first: SuspectList | None


def request(
    data: AnyPath | None,
    detector: str | None,
    teacher: AnyPath | None,
    variations: AnyPath | None,
    about: dict[str, Any],
    retrained: AnyPath | None,
    first_list: AnyPath | None,
) -> Request:
    """The arguments as a `Request`, after the defaults that depend on each other are filled in.

    Raises:
        UsageError: there is no such detector, or a teacher is described but not given.
        DiffcleanError: variations are needed, and there are none or several here; or the list cannot be read.
    """
    from diffclean.datasets.variations import find_variations
    from diffclean.detection.find import DEFAULT_DETECTOR
    from diffclean.detection.registry import get

    described = [name for name, value in about.items() if value is not None]
    if teacher is None and described:
        raise UsageError(f"`{described[0]}` was given without a teacher.", "Give a `teacher` as well.")
    only_a_teacher = teacher is not None and data is None
    usual = "logit-difference" if retrained is not None else "variation-drop" if only_a_teacher else DEFAULT_DETECTOR
    name = detector or usual
    looks = data_path_of(variations)
    if looks is None and get(name).needs_variations:
        looks = find_variations(Path(), "`variations`")
    config = classifier_file(teacher, dict(about), "teacher") if teacher is not None else None
    first = read_list(path_of(first_list)) if first_list is not None else None
    return Request(data_path_of(data), name, config, looks, path_of(retrained), first)


def check_new(out: Path | None, overwrite: bool) -> None:
    """Refuse to write over an existing list.

    Raises:
        DiffcleanError: `out` exists.
    """
    if out is not None and out.exists() and not overwrite:
        raise DiffcleanError(f"{out} exists.", "Give `overwrite` to replace it, or name another `out`.")
