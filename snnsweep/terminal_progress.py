"""A sweep's progress: a live panel on a terminal; in a log file, a pipe, a notebook or a job's log, plain lines."""

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snnsweep.result import Status
from snnsweep.results.words import number
from snnsweep.terminal import STYLE, duration, err
from snnsweep.terminal_gpu import GpuUse

if TYPE_CHECKING:
    from snnsweep.sweep.progress import Progress

QUIET_S = 60  # a log gets a word at least that often, where something happens
BAR = 60


def progress() -> "Callable[[Progress], None]":
    """A listener for `Sweep` and `ResumedSweep` that prints plain lines to stderr, for scripts and notebooks."""
    return PlainLines(lambda line: print(line.plain, file=sys.stderr, flush=True))


class PlainLines:
    """A line for each trial that ended, and now and then one of what is running.

    Args:
        say: prints one.
    """

    def __init__(self, say: Callable[[Text], None]):
        self._say, self._told, self._last = say, 0, 0.0
        self._of: Progress | None = None

    def __call__(self, progress: "Progress") -> None:
        """Takes each change of a sweep's `Progress`."""
        if progress is not self._of:  # another sweep's, or the first
            self._of, self._last = progress, 0.0
            self._told = progress.done - (progress.last is not None)
        if progress.done > self._told and progress.last:
            self._told, self._last = progress.done, time.monotonic()
            self._say(ended_line(progress))
        elif time.monotonic() - self._last > QUIET_S or not self._last:
            self._last = time.monotonic()
            self._say(running_line(progress))


class ProgressView:
    """Shows a `Progress` on stderr while it is open: `PlainLines`, on a terminal with a panel below them."""

    def __init__(self) -> None:
        self._live = Live(console=err, refresh_per_second=1, transient=True)
        self._lines = PlainLines(lambda line: err.print(line, soft_wrap=True))
        self._panel: Panel | None = None

    def __enter__(self) -> "ProgressView":
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._panel:
            self._panel.gpus.stop()

    def __call__(self, progress: "Progress") -> None:
        """Takes each change of a sweep's `Progress`."""
        if not is_watched():
            self._lines(progress)
            return
        if self._panel is None:
            self._panel = Panel(progress)
            self._panel.note()
            self._live.update(self._panel)
            self._live.start()
        if progress.done > self._panel.told and progress.last:
            self._panel.told = progress.done
            err.print(ended_line(progress))  # with soft_wrap rich would cut the panel below it too
        self._panel.note()
        self._live.refresh()


def is_watched() -> bool:
    """Whether somebody sits before a terminal that can draw over itself; a CI's terminal is a log."""
    return err.file.isatty() and err.is_interactive and not os.environ.get("CI")


def ended_line(progress: "Progress") -> Text:
    """What became of the trial that ended last."""
    assert progress.last
    trial_id, result = progress.last
    line = Text(f"{progress.done}/{progress.total} {trial_id} ")
    line.append(result.status, STYLE[result.status])
    figures = [f"{name} {number(result.metrics[name])}" for name in progress.objectives if name in result.metrics]
    line.append("  " + "  ".join(figures) if figures else "")
    line.append(f"  audit {result.verdict}" if result.verdict else "")
    line.append(f"  {result.cause}" if result.cause else "")
    return line.append(f"  left {left(progress)}", "dim")


def running_line(progress: "Progress") -> Text:
    """How far the sweep is, in one line."""
    trials = ", ".join(f"{name} epoch {epochs(progress, name)}" for name in list(progress.running)[:8])
    more = len(progress.running) - 8
    trials += f" and {more} more" if more > 0 else ""
    return counts(progress).append(f"  left {left(progress)}").append(f"  running: {trials}" if trials else "")


def counts(progress: "Progress") -> Text:
    """How many trials have ended, and how."""
    text = Text(f"{progress.done}/{progress.total}  running {len(progress.running)}")
    for status in get_args(Status):
        count = progress.ended.get(status, 0)
        text.append(f"  {status} ").append(str(count), STYLE[status] if count else "dim")
    return text


def epochs(progress: "Progress", name: str) -> str:
    """Of a running trial: `3/8`."""
    run = progress.begun.get(name)
    return f"{progress.running.get(name, 0)}/{run.epochs if run and run.epochs is not None else '?'}"


def left(progress: "Progress") -> str:
    """About the time that is left."""
    return duration(progress.left_s)


def volume(progress: "Progress") -> str:
    """The front's hypervolume with its reference, without which it says nothing."""
    found = progress.hypervolume
    if found is None:
        return "hypervolume ?"
    return f"hypervolume {number(found.value)} over {', '.join(map(number, found.reference.values()))}"


class Panel:
    """What is drawn, again each second: it fits the terminal as it is then.

    Attributes:
        told: trials that have a line of their own above.
    """

    def __init__(self, progress: "Progress"):
        self.progress, self.gpus = progress, GpuUse()
        self.told = progress.done - (progress.last is not None)
        self._front, self._best = "", ""

    def note(self) -> None:
        """Keeps what only the sweep's own thread may ask for: drawing has a thread of its own."""
        progress = self.progress
        self._front = f"front {progress.front_size}  {volume(progress)}  " if progress.has_front else ""
        best = "  ".join(f"{name} {number(value)} ({whose})" for name, (value, whose) in progress.best.items())
        self._best = f"best: {best}" if best else ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = [part for part in self._head() if part.plain]
        lines = sum(len(console.render_lines(part, options.update(height=None))) for part in head)
        yield _Bar(self.progress.total, self.progress.done, width=min(BAR, options.max_width))
        yield from head
        yield from self._running(max(1, console.height - lines - 4), options.max_width)

    def _head(self) -> list[Text]:
        progress = self.progress
        return [
            counts(progress),
            Text(f"{self._front}left {left(progress)}, {progress.slots} side by side"),
            Text(self._best, "bold"),
            *(Text(line) for line in self.gpus.lines()),
        ]

    def _running(self, rows: int, width: int) -> RenderResult:
        progress, now = self.progress, time.monotonic()
        names = list(progress.running)
        table = Table.grid(padding=(0, 3, 0, 0))
        for name in names[: rows if len(names) <= rows else rows - 1]:
            if run := progress.begun.get(name):  # it may have ended meanwhile
                told = f"epoch {epochs(progress, name)}"
                table.add_row(name, told, f"for {duration(now - run.since)}", style="dim")
        yield table
        if len(names) > rows:
            yield Text(f"and {len(names) - rows + 1} more", "dim")


class _Bar(ProgressBar):
    """On a line of its own."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from super().__rich_console__(console, options)
        yield Text("")
