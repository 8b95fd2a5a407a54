"""The progress bar. It is imported only where one is drawn, because importing rich takes a tenth of a second."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from diffclean.display.meter import figures_text, rate_text, seconds_text
from diffclean.display.style import safe


class _Speed(ProgressColumn):
    """Units a second and the remaining time; at the end, the elapsed time."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        parts = [rate_text(speed, task.fields["unit"])] if speed else []
        if task.finished:
            parts.append(seconds_text(task.finished_time or 0))
        elif task.time_remaining is not None:
            parts.append(f"{seconds_text(task.time_remaining)} left")
        return Text(", ".join(parts), style="cyan")


class _Figures(ProgressColumn):
    """Figures that the work reports about itself, such as loss and accuracy."""

    def render(self, task: Task) -> Text:
        return Text(figures_text(task.fields["figures"]), style="dim")


class _Count(ProgressColumn):
    """`128/500 images`, or `128 images` if the total is unknown."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{int(task.total)}"
        return Text(f"{int(task.completed)}{total} {task.fields['unit']}")


class Bar:
    """One bar at a time on standard error. It is also the board through which log lines are written above the bar."""

    def __init__(self) -> None:
        # rich honours NO_COLOR by itself.
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._figures: dict[str, float] = {}

    @property
    def is_seen(self) -> bool:
        """Whether there is a terminal or a notebook in which the bar is drawn."""
        return self._console.is_terminal or self._console.is_jupyter

    def begin(self, what: str, total: int | None, unit: str = "images", done: int = 0) -> None:
        """Start a task; an earlier one is ended."""
        self.end()
        self._figures = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _Count(),
            _Speed(),
            _Figures(),
            console=self._console,
            speed_estimate_period=60,
            redirect_stdout=False,
        )
        self._task = self._progress.add_task(safe(what), total=total, completed=done, unit=unit, figures={})
        self._progress.start()

    def advance(self, count: int = 1, **figures: float) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._figures.update(figures)
            self._progress.update(self._task, advance=count, figures=dict(self._figures))

    def end(self) -> None:
        """End the task and leave the bar as it is."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.stop()

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)
