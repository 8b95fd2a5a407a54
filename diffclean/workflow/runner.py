"""Runs the steps of a job one after another, each of them only if it is not done yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffclean.data.atomic import WriteError, is_full
from diffclean.environment import disk_free_bytes
from diffclean.errors import Interrupted
from diffclean.workflow.ledger import Ledger
from diffclean.workflow.steps import Hands

log = logging.getLogger(__name__)


@dataclass
class Runner:
    """Does steps one after another, and remembers how long each took.

    With a ledger, a step is done again if its inputs have changed. Without a ledger, a step is done if its outcome
    exists: only the name of the outcome is checked. The caller therefore chooses places that other settings never use.
    """

    hands: Hands
    seconds: dict[str, float] = field(default_factory=dict)
    ledger: Ledger | None = None

    def is_done(self, outcome: Path, of: Mapping[str, Any]) -> bool:
        """Whether an outcome need not be made again."""
        return self.ledger.is_done(outcome, of) if self.ledger is not None else outcome.exists()

    def is_settled(self, outcome: Path, source: Path, of: Mapping[str, Any]) -> bool:
        """Whether a person has changed an outcome, whose source is as it was. Without a ledger: whether it exists.

        Args:
            outcome: the file that people may change.
            source: the file that it was made from.
            of: the inputs of the source.
        """
        if self.ledger is None:
            return outcome.exists()
        return self.ledger.was_edited(outcome) and self.ledger.is_done(source, of)

    def do(
        self,
        step: str,
        work: Callable[[], object],
        outcome: Path | None = None,
        of: Mapping[str, Any] | None = None,
        editable: bool = False,
    ) -> None:
        """Do a step, unless its outcome exists.

        Args:
            step: the name of the step.
            work: the function that does the step.
            outcome: the file or folder that the step writes. None: the step is done every time.
            of: the inputs of the outcome, for the ledger.
            editable: see `Ledger.is_done`.

        Raises:
            Interrupted: the work was asked to stop; the same call continues from here.
        """
        if self.hands.stop is not None and self.hands.stop.is_set():
            raise Interrupted("Interrupted.", "The same command goes on from here.")
        if self.ledger is not None and outcome is not None and of is not None:
            if self.ledger.is_done(outcome, of, editable):
                return
            if editable and self.ledger.was_edited(outcome):
                keep_edited(outcome)
            self.ledger.begin(step, outcome, of)
            self._noted(self.ledger, step, work, outcome)
        elif outcome is None or not outcome.exists():
            self._timed(step, work)

    def _noted(self, ledger: Ledger, step: str, work: Callable[[], object], outcome: Path) -> None:
        started = time.monotonic()
        try:
            self._timed(step, work)
        except BaseException:
            with suppress(WriteError):  # What ended the work says more than that its time could not be recorded.
                ledger.spent(outcome, time.monotonic() - started)
            raise
        ledger.spent(outcome, time.monotonic() - started)
        ledger.end(outcome)

    def _timed(self, step: str, work: Callable[[], object]) -> None:
        started = time.monotonic()
        work()
        taken = time.monotonic() - started
        self.seconds[str(step)] = round(self.seconds.get(str(step), 0.0) + taken, 1)
        if taken >= 1:
            log.info("%s: %.0f s.", str(step).capitalize(), taken)


def keep_edited(outcome: Path) -> None:
    """Keep a copy of a file that a person has changed, before it is made again."""
    kept = outcome.with_name(f"{outcome.stem}.edited{outcome.suffix}")
    outcome.replace(kept)
    log.warning("%s was changed by hand and is made anew. Yours is now %s.", outcome, kept)


@contextmanager
def telling_the_need(out: Path, needed_bytes: int) -> Iterator[None]:
    """Add to the message of a full disk how much space the whole job takes.

    Args:
        out: the folder of the job.
        needed_bytes: the space that it is expected to take.

    Raises:
        WriteError: the one that the block raised.
    """
    try:
        yield
    except WriteError as error:
        if not is_full(error):
            raise
        need = f"The whole job takes about {needed_bytes / 1e6:,.0f} MB in {out}; "
        free = f"{disk_free_bytes(out.absolute()) / 1e6:,.1f} MB are free there."
        raise WriteError(error.message, f"{error.hint}\n{need}{free}") from error
