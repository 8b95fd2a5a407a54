"""Distillation: a student learns a suspect teacher's answers to variations, in which the trigger is weakened."""

from __future__ import annotations

from threading import Event

import torch
from torch import Tensor

from diffclean.classifiers import loading
from diffclean.classifiers.class_order import check_agreement
from diffclean.classifiers.loading import LoadedClassifier
from diffclean.classifiers.networks import check_arch, unit_floats
from diffclean.data.suspects import read_suspects
from diffclean.datasets.samples import Samples, check_trainable, memory_limit, sketch_of
from diffclean.datasets.variations import classes_of, compare_classes, load_variations, warn_of_strangers
from diffclean.progress import NoProgress, Progress
from diffclean.training.distill_config import DistillConfig, check
from diffclean.training.distill_loss import distillation_loss, soften
from diffclean.training.distributed import World, joined, processes_here
from diffclean.training.objective import Batch
from diffclean.training.precision import autocast, resolved_precision
from diffclean.training.relabel import Relabelling, identity_of, relabelled, split_by_list
from diffclean.training.run import Job, TrainResult, carry_out
from diffclean.training.train import read_test

DEFAULT_STUDENT = "preact-resnet18"
_BATCH = 512
_TABLE_BYTES = 2 * 2**30
"""The largest table of targets that is kept; for a larger data set the teacher answers again in each epoch."""
_PROBED = 1000


class Distillation:
    """The loss of `distill_loss`, with targets from a table or from the teacher itself.

    Args:
        teacher: the teacher.
        config: the configuration, for temperature, alpha and paper_loss.
        table: (M, C) float32 on the device, a target for each variation; None if the teacher answers to each batch.
    """

    def __init__(self, teacher: LoadedClassifier, config: DistillConfig, table: Tensor | None) -> None:
        self.teacher, self.config, self.table = teacher, config, table
        self.measure = "agreement" if config.alpha == 1 else "accuracy"

    def __call__(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, and which answers agree with the label, or without labels with the teacher."""
        config = self.config
        if self.table is not None:
            targets = self.table[batch.views.to(self.table.device)]
        else:
            targets = soften(self.teacher.logits(batch.images), config.temperature)
        hard = config.temperature if config.paper_loss else 1.0
        loss = distillation_loss(logits, targets, batch.labels, config.temperature, config.alpha, hard)
        return loss, logits.argmax(1) == (targets.argmax(1) if config.alpha == 1 else batch.labels)


def distill(config: DistillConfig, progress: Progress | None = None, stop: Event | None = None) -> TrainResult:
    """Train a student and write it. It resumes, and uses several processes, in the same way as `train`.

    Args:
        config: the teacher, the variations and the loss.
        progress: is advanced for each image that was read or trained on.
        stop: set this event to stop the run.

    Raises:
        UsageError: the configuration is invalid, or the teacher and the data do not belong together.
        DiffcleanError: the teacher or the data cannot be used, the output exists, there is an unfinished run with other
            settings, or the loss is NaN or infinite.
        Interrupted: `stop` was set; the same call continues.
    """
    check(config)
    labelled = config.alpha < 1
    data_classes = classes_of(config.data)
    with joined(config.loop.device) as world:
        progress = progress if progress is not None and world.is_first else NoProgress()
        teacher = loading.load(config.teacher, data_classes, world.device)
        arch = config.student or teacher.arch or DEFAULT_STUDENT
        check_arch(arch)
        compare_classes(config.data, data_classes, teacher.class_to_idx, labelled)
        memory = memory_limit(config.loop.memory_gib, processes_here())
        size = (config.size, config.size) if config.size else teacher.size
        listed = read_suspects(config.without) if config.without else frozenset()
        how = Relabelling(teacher, config.relabel_confidence, config.keep_confirmed) if config.relabel else None
        without = frozenset() if how else listed
        data = load_variations(config.data, teacher.class_to_idx, size, labelled, without, memory, progress)
        warn_of_strangers(config.data, data.sources, teacher.sketch)
        precision = resolved_precision(config.loop.precision, world.device)
        done, probed = None, data
        if how is not None:
            probed = data.chosen(split_by_list(data, listed, config.data)[1])
            data, done = relabelled(data, listed, how, config.data, world, progress)
        if labelled:
            check_trainable(config.data, data)
        metrics = _probe(teacher, probed, world, precision)
        table = _table(teacher, data, config, world, precision, progress) if _keeps_table(config, data) else None
        job = Job(
            arch=arch,
            samples=data,
            objective=Distillation(teacher, config, table),
            test=read_test(config.test, data, memory, progress),
            loop=config.loop,
            identity=_identity(config, teacher) | identity_of(how),
            record={"source": str(config.data), "teacher": config.teacher.path.name, "sketch": sketch_of(data.sources)},
            metrics=metrics,
            out=config.out,
            onnx=config.onnx,
            overwrite=config.overwrite,
            relabelled=done,
        )
        return carry_out(job, world, progress, stop)


def _keeps_table(config: DistillConfig, data: Samples) -> bool:
    """Whether targets are computed once: always for a mean over variations, else if nothing is augmented."""
    small = len(data.pixels) * len(data.class_to_idx) * 4 <= _TABLE_BYTES
    return config.targets == "averaged" or (not config.loop.changes_images and small)


def _identity(config: DistillConfig, teacher: LoadedClassifier) -> dict[str, object]:
    asked = config.teacher
    return {
        "verb": "distill",
        "teacher": {"sha256": teacher.sha256, "mean": asked.mean, "std": asked.std, "size": asked.size},
        **{name: getattr(config, name) for name in ("temperature", "alpha", "paper_loss", "targets")},
    }


@torch.no_grad()
def _table(
    teacher: LoadedClassifier, data: Samples, config: DistillConfig, world: World, precision: str, progress: Progress
) -> Tensor:
    """(M, C) float32 on the device: the target of each variation without augmentation; the processes share the work."""
    table = torch.zeros(len(data.pixels), len(data.class_to_idx), device=world.device)
    parts = world.part(torch.arange(len(data.pixels))).split(_BATCH)
    progress.begin("Asking the teacher", sum(map(len, parts)))
    for part, pixels in zip(parts, data.pixels.batches(parts), strict=True):
        with autocast(world.device, precision):
            logits = teacher.logits(unit_floats(pixels.to(world.device)))
        table[part.to(world.device)] = soften(logits, config.temperature)
        progress.advance(len(part))
    progress.end()
    table = world.sum(table)
    return _averaged(table.cpu(), data).to(world.device) if config.targets == "averaged" else table


def _averaged(table: Tensor, data: Samples) -> Tensor:
    """(M, C) on the CPU, where sums have a fixed order: the mean over all variations of the same image."""
    counts = data.starts.diff()
    image_of = torch.repeat_interleave(torch.arange(len(counts)), counts)
    sums = torch.zeros(len(counts), table.shape[1]).index_add_(0, image_of, table)
    return (sums / counts[:, None])[image_of]


@torch.no_grad()
def _probe(teacher: LoadedClassifier, data: Samples, world: World, precision: str) -> dict[str, float]:
    """`teacher_accuracy`, the share of labels that the teacher agrees with on some variations; nothing without labels.

    A poor agreement causes a warning, since a wrong class order, normalisation or architecture shows up only here.
    """
    with_label = torch.where(data.labels >= 0)[0]
    count = min(_PROBED, len(with_label))
    if not count:
        return {}
    chosen = with_label[torch.linspace(0, len(with_label) - 1, count).long()]
    parts = chosen.split(_BATCH)
    answers = []
    for pixels in data.pixels.batches([data.starts[p] for p in parts]):
        with autocast(world.device, precision):
            answers.append(teacher.logits(unit_floats(pixels.to(world.device))).argmax(1).cpu())
    labels = data.labels[chosen]
    share = check_agreement("The teacher", torch.cat(answers), labels, data.class_to_idx, "the variations", "teacher")
    return {"teacher_accuracy": share}
