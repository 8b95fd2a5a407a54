"""The log of a training: JSON lines always, and TensorBoard event files if TensorBoard is installed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import IO, Any

from diffclean.data.atomic import write_error
from diffclean.errors import DiffcleanError

log = logging.getLogger(__name__)

_FIGURES = ("loss", "accuracy", "agreement", "learning_rate", "images_per_second")


class TrainingLog:
    """A log with one JSON line about the run, one for each epoch, and one about the end.

    Args:
        path: the `.jsonl` file; an older one is replaced.
        about: the content of the first line.
        history: the epochs that an earlier process finished; they are written again, since it may have been killed in
            the middle of a line.
        tensorboard: whether event files are written to the folder `<name>.tensorboard` beside it.

    Raises:
        DiffcleanError: another process is working on the same training, or the file cannot be written.
    """

    def __init__(self, path: Path, about: dict[str, Any], history: list[dict[str, Any]], tensorboard: bool) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = path.open("ab", buffering=0)  # not "w": another process may be writing it
            _hold(self._lines, path)
            self._lines.truncate(0)
        except OSError as error:
            raise write_error(error, path) from error
        folder = path.with_suffix(".tensorboard")
        for old in [] if history else folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._events = _event_writer(folder, len(history) + 1) if tensorboard else None
        try:
            for entry in (about, *history):
                self._say(entry)
        except BaseException:
            self.close()  # Otherwise the lock would stay until the error is forgotten.
            raise

    def epoch(self, entry: dict[str, Any]) -> None:
        """Write the line of a finished epoch."""
        self._say(entry)
        if self._events is not None:
            for name, value in entry.items():
                figure = name.removeprefix("validation_")
                if figure in _FIGURES:
                    group = "training" if figure == name else "validation"
                    self._events.add_scalar(f"{group}/{figure}", value, entry["epoch"])
            self._events.flush()

    def end(self, entry: dict[str, Any]) -> None:
        """Write the last line of the run."""
        self._say({"done": True, **entry})

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._events is not None:
            self._events.close()

    def _say(self, entry: dict[str, Any]) -> None:
        """Write a line, as a whole or not at all: half of a first line would look like a file of somebody else."""
        line = memoryview((json.dumps(entry, default=str) + "\n").encode())
        begin = os.fstat(self._lines.fileno()).st_size
        try:
            while line:
                line = line[self._lines.write(line) :]
        except OSError as error:
            self._lines.truncate(begin)
            raise write_error(error, self._path) from error


def is_training_log(path: Path) -> bool:
    """Whether a file is a training log of diffclean, or empty."""
    try:
        if not path.is_file():  # opening a pipe of that name would wait for ever
            return False
        with path.open("rb") as file:
            first = file.readline(2**20)
        about = json.loads(first) if first else {"loop": None}
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and "loop" in about


def _hold(lines: IO[bytes], path: Path) -> None:
    """Lock the file until it is closed, since other processes would spoil this run's state and classifier."""
    try:
        fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lines.close()
        raise DiffcleanError(
            f"Another process is training: it writes {path}.", "Wait for it to finish, stop it, or name another `out`."
        ) from None


def _event_writer(folder: Path, first_epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info(
            "TensorBoard is not installed, so no event files are written. To install it: pip install "
            "'diffclean[tensorboard]'. To switch them off: --no-tensorboard."
        )
        return None
    return SummaryWriter(str(folder), purge_step=first_epoch)
