"""New labels for suspects, from a classifier that does not have the backdoor.

Usually the images on a list are left out of training. If an attacker changed their labels (dirty labels), a classifier
without the backdoor can correct them. The images then stay in training. Those with a trigger now have the labels of
what they show, so the network learns that the trigger means nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from diffclean.classifiers import loading
from diffclean.classifiers.class_order import is_poor
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.loading import LoadedClassifier
from diffclean.classifiers.networks import unit_floats
from diffclean.datasets.labelled import named
from diffclean.datasets.samples import Samples, check_listed, digest_of
from diffclean.errors import UsageError
from diffclean.progress import Progress
from diffclean.results import WHERE_MEASURED
from diffclean.training.distributed import World

log = logging.getLogger(__name__)

_BATCH = 512
_PROBED = 1000
"""The classifier is compared with the labels of this many images that are not on the list."""


@dataclass(frozen=True)
class Relabelled:
    """What happened to the images on a list.

    Attributes:
        model: the file of the classifier that gave the labels.
        images: the number of listed images that could be read.
        labels: the number of images that got each new label, by class; classes that no image got are missing.
        confirmed: the number of images whose label the classifier confirmed.
        confirmed_kept: whether these stayed in training; if not, they were left out.
        unsure: the number of images that were left out because the classifier was not sure.
        confidence: the probability that an answer needed.
        agreement: the share of labels that the classifier agrees with among images that are not on the list, in [0, 1];
            None if there are no labels.
    """

    model: str
    images: int
    labels: dict[str, int]
    confirmed: int
    confirmed_kept: bool
    unsure: int
    confidence: float
    agreement: float | None = field(default=None, metadata=WHERE_MEASURED)


@dataclass(frozen=True)
class Relabelling:
    """How listed images get new labels.

    Attributes:
        classifier: the classifier that gives the labels.
        confidence: an image is left out if the probability of the answer is lower than this.
        keep_confirmed: whether an image stays in training if the classifier confirms its label. If the labels are right
            (clean-label poison), or the classifier has the backdoor too, such images are poisoned.
    """

    classifier: LoadedClassifier
    confidence: float
    keep_confirmed: bool


def identity_of(how: Relabelling | None) -> dict[str, object]:
    """What relabelling adds to the settings that a resumed run must share; nothing if there is none."""
    if how is None:
        return {}
    return {
        "relabel": {
            "sha256": how.classifier.sha256,
            "confidence": how.confidence,
            "keep_confirmed": how.keep_confirmed,
        }
    }


def open_second(
    path: Path, option: str, classes: Mapping[str, int], data: Path, device: torch.device
) -> LoadedClassifier:
    """Open a classifier that is used beside another one, and for which there are no options that describe its file.

    Args:
        path: a classifier that diffclean wrote.
        option: the option that names it, for messages.
        classes: the classes of the data.
        data: the data set, for messages.
        device: the device that the classifier runs on.

    Raises:
        UsageError: the file does not say which classes its logits stand for, or its classes are not those of the data.
        DiffcleanError: the file is missing, damaged, or not a classifier.
    """
    try:
        classifier = loading.load(ClassifierFile(path), classes, device)
    except UsageError:  # only the weights are there, and `load` asks for options that there are not
        classifier = None
    if classifier is None or classifier.classes_assumed:
        raise UsageError(
            f"{path} does not say which network it is and which classes it knows.",
            f"Give a classifier that diffclean wrote: `{option}` MODEL",
        )
    of_data, of_model = set(classes), set(classifier.class_to_idx)
    parts = [f"only {data} has {named(sorted(of_data - of_model))}"] if of_data - of_model else []
    parts += [f"only the classifier knows {named(sorted(of_model - of_data))}"] if of_model - of_data else []
    if parts:
        raise UsageError(
            f"The classes of {data} and of {path} do not match: {'; '.join(parts)}.",
            f"Give a classifier that was trained on the classes of these data: `{option}` MODEL",
        )
    return classifier


def split_by_list(samples: Samples, listed: Collection[str], root: Path) -> tuple[Tensor, Tensor]:
    """The numbers of (L,) images that are on the list and of (N - L,) images that are not.

    Args:
        samples: the images of `root`.
        listed: the keys on the list. An empty list is accepted.
        root: the data set, for the message.

    Raises:
        UsageError: none of the images is on the list, or all of them are.
    """
    on_list = torch.tensor([key in listed for key in samples.keys], dtype=torch.bool)
    if listed:
        check_listed(len(on_list), int((~on_list).sum()), root)
    return torch.where(on_list)[0], torch.where(~on_list)[0]


def relabelled(
    samples: Samples, listed: Collection[str], how: Relabelling, root: Path, world: World, progress: Progress
) -> tuple[Samples, Relabelled]:
    """Give listed images the labels that a classifier gives them, and leave out those that get none.

    The label of an image with several variations is the answer to all of them together: the class with the highest mean
    probability. All processes must call this, and get the same.

    Args:
        samples: the images of `root`, with those on the list.
        listed: the keys on the list.
        how: the classifier and the rules.
        root: the data set, for messages.
        world: the processes; each asks the classifier about its part.
        progress: is advanced for each image that is labelled.

    Raises:
        UsageError: none of the images is on the list, or all of them are.
    """
    here, beside = split_by_list(samples, listed, root)
    progress.begin("Labelling the suspects", len(here))
    answers, probabilities = _answers(how.classifier, samples, here, world, progress)
    progress.end()
    before = samples.labels[here]
    sure = probabilities >= how.confidence
    confirmed, new = sure & (answers == before), sure & (answers != before)
    labels = samples.labels.clone()
    labels[here[new]] = answers[new]
    kept = torch.cat([beside, here[new], here[confirmed] if how.keep_confirmed else here[:0]]).sort().values
    names = {number: name for name, number in samples.class_to_idx.items()}
    counts = Counter(names[number] for number in sorted(answers[new].tolist()))
    done = Relabelled(
        model=how.classifier.name,
        images=len(here),
        labels=dict(counts),
        confirmed=int(confirmed.sum()),
        confirmed_kept=how.keep_confirmed,
        unsure=int((~sure).sum()),
        confidence=how.confidence,
        agreement=_agreement(how.classifier, samples, beside, world),
    )
    _warn(done, len(names))
    left = replace(samples, labels=labels).chosen(kept)
    texts = [(key, str(label)) for key, label in zip(left.keys, left.labels.tolist(), strict=True)]
    return replace(left, digest=digest_of([(samples.digest,), *texts])), done


@torch.no_grad()
def _answers(
    classifier: LoadedClassifier, samples: Samples, images: Tensor, world: World, progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """(L,) int64, the answer to each image as a number of `samples.class_to_idx`; (L,) float32, its probability."""
    chosen = samples.chosen(images)
    counts = chosen.starts.diff()
    every = world.part(torch.arange(len(images)))
    parts = [part for part in every.split(max(1, _BATCH // samples.most_variations)) if len(part)]
    views = [torch.arange(int(chosen.starts[part[0]]), int(chosen.starts[part[-1] + 1])) for part in parts]
    found = torch.zeros(2, len(images))
    for part, pixels in zip(parts, chosen.pixels.batches(views), strict=True):
        shares = classifier.logits(unit_floats(pixels.to(world.device))).softmax(1).cpu()
        image_of = torch.repeat_interleave(torch.arange(len(part)), counts[part])
        sums = torch.zeros(len(part), shares.shape[1]).index_add_(0, image_of, shares)
        best = (sums / counts[part, None]).max(1)
        found[:, part] = torch.stack([best.indices.float(), best.values])
        if progress is not None:
            progress.advance(len(part))
    found = world.sum(found.to(world.device)).cpu()
    order = sorted(classifier.class_to_idx, key=classifier.class_to_idx.__getitem__)
    numbers = torch.tensor([samples.class_to_idx[name] for name in order])
    return numbers[found[0].long()], found[1]


def _agreement(classifier: LoadedClassifier, samples: Samples, beside: Tensor, world: World) -> float | None:
    """The share of labels that the classifier agrees with, on some of the given images; None if they have no labels."""
    labelled = beside[samples.labels[beside] >= 0]
    if not len(labelled):
        return None
    probed = labelled[torch.linspace(0, len(labelled) - 1, min(_PROBED, len(labelled))).long()]
    answers, _ = _answers(classifier, samples, probed, world)
    return float((answers == samples.labels[probed]).double().mean())


def _warn(done: Relabelled, classes: int) -> None:
    if done.agreement is not None and is_poor(done.agreement, classes):
        log.warning(
            "%s agrees with only %.0f%% of the labels of images that are not on the list, so many of the new labels "
            "are probably wrong.",
            done.model,
            100 * done.agreement,
        )
    if done.confirmed_kept and 2 * done.confirmed > done.images:
        log.warning(
            "%s confirms the labels of %d of %d listed images, and these stay in training. If they are poisoned with "
            "clean labels, or if this classifier has the backdoor too, the new classifier will have it as well.",
            done.model,
            done.confirmed,
            done.images,
        )
