"""Lets a sink follow a run: what is finished gets its last form while the rest is still being made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Condition, Thread
from types import TracebackType

from diffclean.data.item import Item
from diffclean.data.journal import Journal
from diffclean.data.keys import key_bytes
from diffclean.data.manifest import Row
from diffclean.data.sinks import Sink
from diffclean.data.sources import Source
from diffclean.data.survey import Survey
from diffclean.variation.work import Job

MOST_BEHIND = 20_000
"""Images that may be finished and not taken by the sink; the run then waits for it, so that what waits is bounded."""


class _EndedError(Exception):
    """The run has stopped before the next image was finished."""


class Following:
    """Has `sink.follow` work in a thread of its own during a run: `with Following(...) as following: ...`.

    The images reach the sink in the order of their keys, each as soon as it and all before it are finished. Leaving the
    block waits until the sink has done what it can. An error of the sink ends the run: `recorded` raises it.

    Args:
        survey: the images of the run, which nothing else may list meanwhile.
        journal: the journal of the run.
        sink: the sink.
        source: the source.
        class_to_idx: the classes of the output.
    """

    def __init__(
        self, survey: Survey, journal: Journal, sink: Sink, source: Source, class_to_idx: Mapping[str, int]
    ) -> None:
        self._survey, self._journal = survey, journal
        self._sink, self._source, self._classes = sink, source, class_to_idx
        self._changed = Condition()
        self._open: dict[str, set[int]] = {}  # key -> variants that were handed out and are not recorded
        self._finished: set[str] = set()  # keys that the sink has not taken
        self._last, self._all_handed = b"", False
        self._waits_for = ""  # the key of the image that the sink waits for
        self._is_over = self._has_ended = False
        self._error: BaseException | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._has_ended = error is not None or not self._all_handed or bool(self._open)
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def jobs(self, pending: Iterable[Job]) -> Iterator[Job]:
        """Pass on the jobs of the run, in the order of keys, and note what is handed out."""
        self._thread = Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()
        for item, variants in pending:
            with self._changed:
                self._open[item.key], self._last = set(variants), key_bytes(item.key)
            yield item, variants
        with self._changed:
            self._all_handed = True
            self._changed.notify_all()

    def recorded(self, rows: Sequence[Row]) -> None:
        """Note what the journal holds now. Waits if the sink is far behind.

        Raises:
            BaseException: what the sink has raised.
        """
        with self._changed:
            for row in rows:
                self._note(row)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over or len(self._finished) <= MOST_BEHIND or self._is_idle())
        if self._error is not None:
            raise self._error

    def _note(self, row: Row) -> None:
        variants = self._open.get(row.key)
        if variants is not None:
            variants.discard(row.variant)
            if not variants:
                del self._open[row.key]
                if not self._is_over:
                    self._finished.add(row.key)

    def _follow(self) -> None:
        try:
            self._sink.follow(self._images(), self._source, self._classes)
        except _EndedError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._finished.clear()
                self._changed.notify_all()

    def _images(self) -> Iterator[tuple[Item, list[Row]]]:
        """Each image with the last attempts at its variations, once they are recorded."""
        for item in self._survey.items():
            self._wait_for(item.key)
            yield item, list(self._journal.latest_of(item.key))

    def _wait_for(self, key: str) -> None:
        with self._changed:
            self._waits_for = key
            if len(self._finished) > MOST_BEHIND:
                self._changed.notify_all()  # `recorded` may be waiting for this sink, and this sink for what it records
            self._changed.wait_for(lambda: self._has_ended or self._is_settled(key))
            if self._has_ended:
                raise _EndedError
            self._waits_for = ""
            self._finished.discard(key)
            if len(self._finished) == MOST_BEHIND:
                self._changed.notify_all()

    def _is_settled(self, key: str) -> bool:
        """Whether nothing more will be recorded of an image."""
        return key not in self._open and (self._all_handed or key_bytes(key) <= self._last)

    def _is_idle(self) -> bool:
        """Whether the sink can do nothing before more is recorded."""
        return bool(self._waits_for) and not self._is_settled(self._waits_for)
