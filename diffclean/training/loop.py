"""The training loop, which teacher and student share. It works with any loss on logits."""

from __future__ import annotations

import logging
import math
import time
from threading import Event
from typing import Any

import torch
from torch import nn

from diffclean.errors import DiffcleanError, Interrupted
from diffclean.progress import Progress
from diffclean.training.log import TrainingLog
from diffclean.training.objective import measured
from diffclean.training.resume import StateFile
from diffclean.training.trainer import Trainer

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.5
"""The seconds between two checks of the loss, each of which waits for the GPU."""
_LOOK_EVERY_STEPS = 10
"""The steps between two checks with several processes, which must all check after the same step."""


class Loop:
    """A training run and its state.

    Args:
        trainer: the network, its data and its optimiser.
        state: the file in which the run is saved now and then; only the first process writes it.
        progress: is advanced for each image.
        stop: set this event to stop the run.
    """

    def __init__(self, trainer: Trainer, state: StateFile, progress: Progress, stop: Event) -> None:
        self.trainer, self.state, self.progress, self.stop = trainer, state, progress, stop
        self.config, self.world = trainer.config, trainer.world
        self.epoch = self.step = self.waited = 0
        self.seconds = 0.0  # of this epoch, in earlier processes
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.world.device)  # losses, right answers, images
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._reported = 0
        self._began = self._looked = self._saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the saved state, if there is one.

        Raises:
            DiffcleanError: the state belongs to other settings.
        """
        state = self.state.load(self.world.device)
        if state is None:
            return
        try:
            self.trainer.load_state_dict(state)
            for name in ("epoch", "step", "waited", "seconds", "history", "best"):
                setattr(self, name, state[name])
            self._reported = int(state["sums"][2])
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise self.state.damaged() from error
        if self.world.is_first:  # the saved value is the sum over all processes
            self.sums = state["sums"]
            log.info("Going on in epoch %d, after step %d of %d.", self.epoch + 1, self.step, self.trainer.steps)

    def run(self, lines: TrainingLog | None) -> nn.Module:
        """Train until the end, or until it no longer helps; return the network to keep.

        Args:
            lines: the log of the epochs; None if another process writes it.

        Raises:
            DiffcleanError: the loss is NaN or infinite.
            Interrupted: `stop` was set; the state is saved.
        """
        per_epoch = self.trainer.steps * self.trainer.batch
        self._began = self._looked = self._saved = time.monotonic()
        self.progress.begin("Training", self.config.epochs * per_epoch, done=self.epoch * per_epoch + self._reported)
        while self.epoch < self.config.epochs and not self._exhausted:
            self._train_epoch()
            entry = self._close_epoch()
            if lines is not None:
                lines.epoch(entry)
        self.progress.end()
        model = self.trainer.result
        if self.config.patience is not None and self.best is not None:
            model.load_state_dict(self.best["weights"])
        return model

    @property
    def _exhausted(self) -> bool:
        return self.config.patience is not None and self.waited >= self.config.patience

    def _train_epoch(self) -> None:
        """Do the remaining steps of this epoch."""
        self.trainer.network.train()
        self._began = time.monotonic()
        batches = self.trainer.batches(self.epoch, self.step)
        pixels_of = self.trainer.samples.pixels.batches([views for _, views in batches])
        for (images, views), pixels in zip(batches, pixels_of, strict=True):
            self.sums += self.trainer.train_step(self.epoch, self.step, images, views, pixels)
            self.step += 1
            if self._time_to_look():
                self._look()

    def _time_to_look(self) -> bool:
        if self.step == self.trainer.steps:
            return True
        if self.world.size > 1:
            return self.step % _LOOK_EVERY_STEPS == 0
        now = time.monotonic()
        return self.stop.is_set() or now - self._looked >= _LOOK_EVERY_S or self._save_is_due(now)

    def _save_is_due(self, now: float) -> bool:
        return self.world.is_first and now - self._saved >= self.config.save_every_s

    def _look(self) -> None:
        """Report the loss, check it, and save the state if it is time."""
        self._looked = time.monotonic()
        sums = self.world.sum(self.sums)
        loss, right, count = sums.tolist()
        if not math.isfinite(loss):
            raise self._diverged(f"The loss became {loss}")
        figures = {"loss": loss / count, self.trainer.objective.measure: right / count}
        self.progress.advance(int(count) - self._reported, **figures)
        self._reported = int(count)
        stopping = self.world.any(self.stop.is_set())
        if self.world.any(self._save_is_due(self._looked)) or stopping:
            self._save(sums)
        if stopping:
            where = f"epoch {self.epoch + 1} of {self.config.epochs}, step {self.step} of {self.trainer.steps}"
            raise Interrupted(f"Stopped in {where}; the state is in {self.state.path}.")

    def _save(self, sums: torch.Tensor) -> None:
        # A step with a finite loss may still have ruined the weights.
        if not self.trainer.is_finite():
            raise self._diverged("The weights are no longer finite")
        if self.world.is_first:
            place = {"epoch": self.epoch, "step": self.step, "seconds": self._seconds(), "sums": sums}
            course = {"history": self.history, "best": self.best, "waited": self.waited}
            self.state.save(self.trainer.state_dict() | place | course)
        self._saved = time.monotonic()

    def _seconds(self) -> float:
        """The seconds of this epoch so far."""
        return self.seconds + time.monotonic() - self._began

    def _close_epoch(self) -> dict[str, Any]:
        """Measure, note the best epoch and go to the next one; return the line of the log."""
        loss, right, count = self.world.sum(self.sums).tolist()
        if not self.trainer.is_finite():
            raise self._diverged("The weights are no longer finite")
        measure, seconds = self.trainer.objective.measure, self._seconds()
        entry: dict[str, Any] = {"epoch": self.epoch + 1, "loss": loss / count, measure: right / count}
        entry |= self._validation()
        entry |= {"learning_rate": self.trainer.rate, "seconds": round(seconds, 2)}
        entry["images_per_second"] = round(count / seconds, 1)
        log.info("Epoch %d: loss %.3f, %s %.3f.", self.epoch + 1, loss / count, measure, right / count)
        self.history.append(entry)
        self.epoch, self.step, self.seconds, self._reported = self.epoch + 1, 0, 0.0, 0
        self.sums = torch.zeros_like(self.sums)
        return entry

    def _validation(self) -> dict[str, Any]:
        """Measure the held-out images, if there are any, and note the best epoch."""
        trainer = self.trainer
        if not len(trainer.held_out):
            return {}
        seen = measured(
            trainer.result, trainer.samples, trainer.held_out, trainer.objective, self.world, trainer.precision
        )
        if not math.isfinite(seen.loss):
            raise self._diverged(f"The validation loss became {seen.loss}")
        if self.best is not None and seen.loss >= self.best["loss"]:
            self.waited += 1
        else:
            kept = self.config.patience is not None
            weights = {name: tensor.clone() for name, tensor in trainer.result.state_dict().items()} if kept else {}
            self.best, self.waited = {"epoch": self.epoch + 1, "loss": seen.loss, "weights": weights}, 0
        return {
            "validation_loss": seen.loss,
            f"validation_{trainer.objective.measure}": seen.right,
            "validation_images": seen.count,
        }

    def _diverged(self, what: str) -> DiffcleanError:
        kept = "No state had been saved yet."
        if self.state.path.exists():
            kept = f"The last good state is kept in {self.state.path}."
        precision = self.trainer.precision
        finer = "" if precision == "fp32" else f"; or `precision` fp32 (it is {precision})"
        return DiffcleanError(
            f"{what} in epoch {self.epoch + 1}, step {self.step}. {kept}",
            f"Use a smaller `learning_rate` (it is {self.trainer.peak_rate:g}) with `overwrite`, which starts from the "
            f"beginning{finer}.",
        )
