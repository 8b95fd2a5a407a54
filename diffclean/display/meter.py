"""Counts the progress of one task, and writes it in numbers and words."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

RATE_WINDOW_S = 60.0


def seconds_text(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate_text(rate: float, unit: str) -> str:
    """`12.3 images/s`, or `4.2 s/image` for slow work."""
    if rate >= 0.5:
        return f"{rate:.1f} {unit}/s"
    return f"{1 / rate:.1f} s/{unit.removesuffix('s')}" if rate > 0 else f"0 {unit}/s"


def figures_text(figures: dict[str, float]) -> str:
    """`loss 0.1234, accuracy 0.91`; counts are written in full: `windows 12,345`."""
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}" for name, value in figures.items()
    )


class Meter:
    """Counts one task: how much is done, the current rate, and the remaining time."""

    def __init__(self, what: str, total: int | None, unit: str, done: int) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self.figures: dict[str, float] = {}
        self.began_s = time.monotonic()
        self._first = done
        self._samples: deque[tuple[float, int]] = deque([(self.began_s, done)])

    def advance(self, count: int, figures: dict[str, float]) -> None:
        """Count `count` more units."""
        self.done += count
        self.figures.update(figures)
        now = time.monotonic()
        self._samples.append((now, self.done))
        # Only the last minute counts, so that a slow first batch (compilation, cold caches) does not spoil the
        # estimate.
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Units a second over the last minute."""
        (t0, n0), (t1, n1) = self._samples[0], self._samples[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    @property
    def overall_rate(self) -> float:
        """Units a second since the task began, without those that were finished earlier."""
        elapsed_s = time.monotonic() - self.began_s
        return (self.done - self._first) / elapsed_s if elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """The remaining seconds, or None if they cannot be estimated."""
        return None if self.total is None or self.rate <= 0 else max(0, self.total - self.done) / self.rate

    def line(self, ended: bool = False) -> str:
        """`variate: 128/500 images, 12.3 images/s, 30 s left, loss 0.1`."""
        count = f"{self.done}/{self.total}" if self.total is not None else str(self.done)
        parts = [f"{self.what}: {count} {self.unit}"]
        if self.done > self._first:  # else there is no rate to tell
            parts.append(rate_text(self.overall_rate if ended else self.rate, self.unit))
        if ended:
            parts.append(f"{seconds_text(time.monotonic() - self.began_s)} in all")
        elif (left := self.left_s) is not None:
            parts.append(f"{seconds_text(left)} left")
        if self.figures:
            parts.append(figures_text(self.figures))
        return ", ".join(parts)

    def record(self) -> dict[str, Any]:
        """The progress as a record for machines."""
        left_s = self.left_s
        return {
            "task": self.what,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "rate_per_s": round(self.rate, 3),
            "left_s": None if left_s is None else round(left_s, 1),
            **self.figures,
        }
