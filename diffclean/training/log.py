"""What is written down while a classifier trains: JSON lines always, TensorBoard's events where it is installed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_FIGURES = ("loss", "accuracy", "agreement", "learning_rate", "images_per_second")


class TrainingLog:
    """A JSON line an epoch, between one about the run and one about its end.

    Args:
        path: of the `.jsonl` file; an older one is replaced.
        about: the first line.
        history: epochs that an earlier process has done; written again, since it may have been killed in mid-line.
        tensorboard: write events to the folder `<name>.tensorboard` beside it.
    """

    def __init__(self, path: Path, about: dict[str, Any], history: list[dict[str, Any]], tensorboard: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = path.with_suffix(".tensorboard")
        for old in [] if history else folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._events = _event_writer(folder, len(history) + 1) if tensorboard else None
        self._lines = path.open("w", encoding="utf-8")
        for entry in (about, *history):
            self._say(entry)

    def epoch(self, entry: dict[str, Any]) -> None:
        """An epoch is over."""
        self._say(entry)
        if self._events is not None:
            for name, value in entry.items():
                figure = name.removeprefix("validation_")
                if figure in _FIGURES:
                    group = "training" if figure == name else "validation"
                    self._events.add_scalar(f"{group}/{figure}", value, entry["epoch"])
            self._events.flush()

    def end(self, entry: dict[str, Any]) -> None:
        """The run is over."""
        self._say({"done": True, **entry})

    def close(self) -> None:
        """Let go of the files."""
        self._lines.close()
        if self._events is not None:
            self._events.close()

    def _say(self, entry: dict[str, Any]) -> None:
        self._lines.write(json.dumps(entry, default=str) + "\n")
        self._lines.flush()


def _event_writer(folder: Path, first_epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed, so its events are not written: pip install tensorboard")
        return None
    return SummaryWriter(str(folder), purge_step=first_epoch)
