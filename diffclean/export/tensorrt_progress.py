"""Reports the progress of a TensorRT build as one task of `diffclean.progress`, and lets it be stopped."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from diffclean.errors import Interrupted
from diffclean.progress import Progress


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Watch:
    """The nested phases of a build as per cent of one task. The library calls it, perhaps from several threads.

    Args:
        progress: is advanced for every whole per cent.
        stop: ends the build at its next step.
    """

    def __init__(self, progress: Progress, stop: threading.Event | None = None) -> None:
        self._progress = progress
        self._stop = stop or threading.Event()
        self._phases: dict[str, _Phase] = {}
        self._percent = 0
        self._lock = threading.Lock()
        self.failure: BaseException | None = None
        self.stopped = False

    def run(self, trt: Any, what: str, builder: Any, network: Any, config: Any) -> Any:
        """Build, as a task called `what`; return the bytes of the engine, or None if the build failed.

        Raises:
            Interrupted: `stop` was set.
            BaseException: what a listener raised, including KeyboardInterrupt.
        """
        monitor = monitor_for(trt, self)
        config.progress_monitor = monitor
        self._progress.begin(what, 100, "%")
        try:
            plan = builder.build_serialized_network(network, config)
            if plan is not None and not self.stopped:  # the library may not have reported every step
                self._progress.advance(100 - self._percent)
        finally:
            self._progress.end()
        if self.failure is not None:
            raise self.failure
        if self.stopped:
            raise Interrupted(f"Stopped: {what}. Nothing was written.")
        return plan

    def start_phase(self, name: str, parent: str | None, steps: int) -> None:
        """A phase with a number of steps starts, within a step of its parent."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(steps, 1))

    def step(self, name: str, step: int) -> bool:
        """A step (counted from 0) is done. The result False ends the build."""
        try:
            with self._lock:
                if name in self._phases:
                    self._phases[name].done = step + 1
                percent = int(100 * self._share(None))
                gained, self._percent = max(0, percent - self._percent), max(percent, self._percent)
                if gained:
                    self._progress.advance(gained)
        except (
            BaseException
        ) as error:  # no exception, not even Ctrl-C, may reach the calling C++; raised after the build
            self.failure = error
        self.stopped = self.stopped or self._stop.is_set()
        return self.failure is None and not self.stopped

    def finish_phase(self, name: str) -> None:
        """A phase is over, whether or not all its steps were reported."""
        with self._lock:
            self._phases.pop(name, None)

    def _share(self, parent: str | None) -> float:
        """The share of the phases within `parent` that is done, from 0 to 1."""
        within = [(name, phase) for name, phase in self._phases.items() if phase.parent == parent]
        return max((min(1.0, (phase.done + self._share(name)) / phase.steps) for name, phase in within), default=0.0)


def monitor_for(trt: Any, watch: Watch) -> Any:
    """A progress monitor for the library; it must exist until the build is over."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start_phase(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish_phase(phase_name)

    return Monitor()
