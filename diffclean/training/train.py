"""Supervised training of a classifier: the teacher, and the reference classifiers for measurements."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from diffclean.classifiers.networks import check_arch
from diffclean.data.suspects import read_suspects
from diffclean.datasets.samples import Samples, check_trainable, folder_samples, memory_limit, sketch_of
from diffclean.datasets.variations import classes_of, load_variations
from diffclean.progress import NoProgress, Progress
from diffclean.training.distributed import World, joined, processes_here
from diffclean.training.objective import Supervised
from diffclean.training.relabel import Relabelling, identity_of, open_second, relabelled
from diffclean.training.run import Job, TrainResult, carry_out
from diffclean.training.train_config import TrainConfig, check


def train(config: TrainConfig, progress: Progress | None = None, stop: Event | None = None) -> TrainResult:
    """Train a classifier and write it. The same configuration, data and machine give the same weights.

    If `torchrun` started several processes, they train one classifier together. A run that was stopped or killed
    continues when the same call is made again.

    Args:
        config: the classifier, the data and the settings.
        progress: is advanced for each image that was read or trained on.
        stop: set this event to stop the run.

    Raises:
        UsageError: the configuration is invalid.
        DiffcleanError: the data cannot be used, the output exists, there is an unfinished run with other settings, or
            the loss is NaN or infinite.
        Interrupted: `stop` was set; the same call continues.
    """
    check(config)
    check_arch(config.arch)
    with joined(config.loop.device) as world:
        progress = progress if progress is not None and world.is_first else NoProgress()
        memory = memory_limit(config.loop.memory_gib, processes_here())
        size = (config.size, config.size) if config.size else None
        listed = read_suspects(config.without) if config.without else frozenset()
        classes = classes_of(config.data, config.label_from)
        how = _relabelling(config, classes, world) if config.relabel else None
        data = load_variations(
            config.data,
            classes,
            size,
            without=frozenset() if how else listed,
            memory=memory,
            progress=progress,
            label_from=config.label_from,
        )
        done = None
        if how is not None:
            data, done = relabelled(data, listed, how, config.data, world, progress)
        check_trainable(config.data, data)
        job = Job(
            arch=config.arch,
            samples=data,
            objective=Supervised(config.label_smoothing),
            test=read_test(config.test, data, memory, progress),
            loop=config.loop,
            identity={"verb": "train", "label_smoothing": config.label_smoothing, **identity_of(how)},
            record={"source": str(config.data), "sketch": sketch_of(data.sources)},
            metrics={},
            out=config.out,
            onnx=config.onnx,
            overwrite=config.overwrite,
            relabelled=done,
        )
        return carry_out(job, world, progress, stop)


def _relabelling(config: TrainConfig, classes: dict[str, int], world: World) -> Relabelling:
    """How the images on the list get new labels, where `config.relabel` is given."""
    assert config.relabel is not None
    classifier = open_second(config.relabel, "relabel", classes, config.data, world.device)
    return Relabelling(classifier, config.relabel_confidence, config.keep_confirmed)


def read_test(root: Path | None, data: Samples, memory: int | None, progress: Progress) -> Samples | None:
    """The test set at the size and with the classes of `data`; None if there is none."""
    if root is None:
        return None
    return folder_samples(root, data.pixels.shape, data.class_to_idx, memory=memory, progress=progress)
