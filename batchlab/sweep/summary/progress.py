"""The progress of a sweep: bars in a terminal, plain lines elsewhere."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchlab.printable import printable
from batchlab.records import RunRecord, RunStatus
from batchlab.records.quantities import TRAINING_SPEED, VALIDATION_LOSS

SECONDS_BETWEEN_LINES = 10.0  # short enough for the log of a batch system
STYLES = {RunStatus.COMPLETED: "green", RunStatus.OOM: "yellow", RunStatus.DIVERGED: "yellow"}
Clock = Callable[[], float]


def progress(
    *, total: int, skipped: int = 0, console: Console | None = None, clock: Clock = time.monotonic
) -> "PlainProgress":
    """Shows on stderr the progress of a sweep of `total` points, of which `skipped` already had a final result.

    Bars in a terminal; lines if the output is not a terminal, or NO_COLOR or CI is set.
    """
    console = console or UnreadConsole(stderr=True)
    quiet = os.environ.get("NO_COLOR") or os.environ.get("CI", "").lower() not in ("", "0", "false")
    kind = PlainProgress if quiet or not console.is_interactive else LiveProgress
    return kind(total, skipped, console, clock)


class UnreadConsole(Console):
    """A console whose reader may close it (`| head`, a closed terminal): its output stops, and the sweep continues.

    In a notebook it writes plain lines: rich would make a display of each line, and cursor movements do not work.
    """

    def __init__(self, **settings: Any) -> None:
        if Console().is_jupyter:
            settings |= {"force_jupyter": False, "force_terminal": False}
        super().__init__(**settings)

    def on_broken_pipe(self) -> None:
        self.quiet = True


@dataclass
class Running:
    """A point that is being trained."""

    label: str
    number: int  # among the points of the sweep, from 1
    budget_examples: int
    started: float  # on the clock
    examples: int = 0
    loss: float | None = None
    examples_per_second: float | None = None
    first_examples: int | None = None  # at the first update: the pace does not include the start
    first_update: float = 0.0

    def seconds_left(self, now: float) -> float | None:
        """At its pace so far, validations included; None if the pace is not known."""
        pace = self.examples_per_second
        if self.first_examples is not None and self.examples > self.first_examples and now > self.first_update:
            pace = (self.examples - self.first_examples) / (now - self.first_update)
        return max(0, self.budget_examples - self.examples) / pace if pace and self.budget_examples else None

    def summary(self, now: float) -> str:
        """Speed, loss and time left, as far as they are known."""
        parts = []
        if self.examples_per_second is not None and math.isfinite(self.examples_per_second):
            parts.append(f"{self.examples_per_second:,.0f} examples/s")
        if self.loss is not None:
            parts.append(f"loss {self.loss:#.4g}")
        left = self.seconds_left(now)
        if left is not None:
            parts.append(f"{duration(left)} left")
        return ", ".join(parts) or "starting"


class PlainProgress:
    """One line when a point starts, one when it ends, and a few in between."""

    def __init__(self, total: int, skipped: int, console: Console, clock: Clock) -> None:
        self.total = total
        self.done = skipped
        self.skipped = skipped
        self.console = console
        self.clock = clock
        self.began = clock()
        self.points_started = skipped
        self.running: dict[str, Running] = {}
        self.last_line = clock()

    def __enter__(self) -> "PlainProgress":
        if self.skipped:
            are = "is finished and is" if self.skipped == 1 else "are finished and are"
            which = "the point" if self.total == 1 else f"{self.skipped} of the {self.total} points"
            self.say(f"{which} {are} not run again")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to clean up."""

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        """A point begins; `label` distinguishes it from the others; the budget is 0 until it is known."""
        self.points_started += 1
        self.running[run_id] = Running(printable(label), self.points_started, budget_examples, self.clock())
        self._started(self.running[run_id])

    def expect(self, run_id: str, budget_examples: int) -> None:
        """The budget of a point, known once its data is loaded."""
        if run_id in self.running:
            self.running[run_id].budget_examples = budget_examples

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        """The progress of a running point."""
        if run_id not in self.running:
            return
        point = self.running[run_id]
        point.examples, point.loss, point.examples_per_second = examples, loss, examples_per_second
        if point.first_examples is None:
            point.first_examples, point.first_update = examples, self.clock()
        self._updated(point)

    def finish(self, run_id: str, status: RunStatus, record: RunRecord | None) -> None:
        """A point ended, successfully or not; `record` is None if it left none."""
        point = self.running.pop(run_id, None)
        self.done += 1
        label = self._numbered(point) if point else printable(run_id)
        after = f" in {duration(self.clock() - point.started)}" if point else ""
        line = Text.assemble(f"{label}: ", (str(status), STYLES.get(status, "red")), f"{after}{_outcome(record)}")
        self._line(line)

    def abandon(self, run_id: str) -> None:
        """The point is not run by this sweep after all."""
        if self.running.pop(run_id, None) is not None:
            self.points_started -= 1

    def say(self, text: str) -> None:
        """Shows a message on a separate line."""
        self._line(Text(printable(text)))

    def _started(self, point: Running) -> None:
        self._line(Text(f"{self._numbered(point)}: started"))

    def _updated(self, point: Running) -> None:
        now = self.clock()
        if now - self.last_line >= SECONDS_BETWEEN_LINES:
            of = f" of {point.budget_examples:,}" if point.budget_examples else ""
            self._line(Text(f"{self._numbered(point)}: {point.examples:,}{of} examples, {point.summary(now)}"))

    def _numbered(self, point: Running) -> str:
        return f"[{point.number}/{self.total}] {point.label}"

    def _line(self, text: Text) -> None:
        self.last_line = self.clock()
        # A terminal wraps at words; a log is not wrapped, so that grep finds whole lines.
        self.console.print(text, soft_wrap=not self.console.is_terminal, highlight=False)


class LiveProgress(PlainProgress):
    """Bars at the bottom of the terminal for all points and the running ones; lines of ended points above."""

    def __init__(self, total: int, skipped: int, console: Console, clock: Clock) -> None:
        super().__init__(total, skipped, console, clock)
        # stdout is not redirected: otherwise the table would go to stderr.
        self.live = Live(self, console=console, refresh_per_second=4, transient=True, redirect_stdout=False)

    def __enter__(self) -> "LiveProgress":
        super().__enter__()
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def __rich__(self) -> RenderableType:
        now = self.clock()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for point in list(self.running.values()):
            grid.add_row(Text(self._numbered(point)))
            bar = ProgressBar(total=max(1, point.budget_examples), completed=point.examples)
            grid.add_row(self._bar("examples", bar, point.summary(now)))
        points = ProgressBar(total=max(1, self.total), completed=self.done)
        grid.add_row(self._bar("points", points, f"{self.done} of {self.total} in {duration(now - self.began)}"))
        return grid

    def _bar(self, name: str, bar: ProgressBar, text: str) -> Table:
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True, width=len("examples"))
        row.add_column(width=max(8, min(30, self.console.width - 58)))
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_row(name, bar, text)
        return row

    def _started(self, point: Running) -> None:
        """The bar shows it."""

    def _updated(self, point: Running) -> None:
        """The bar shows it."""


def duration(seconds: float) -> str:
    """`6.1 s`, `2 min 05 s`, `3 h 20 min`: rounded for people."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _outcome(record: RunRecord | None) -> str:
    """The loss and speed of a completed point, the reason of any other end."""
    if record is None:
        return ""
    if record.status is not RunStatus.COMPLETED:
        return f": {printable(record.reason)}" if record.reason else ""
    loss, speed = record.final.get(VALIDATION_LOSS.name), record.final.get(TRAINING_SPEED.name)
    loss_text = f", {VALIDATION_LOSS.label} {VALIDATION_LOSS.written(loss)}" if loss is not None else ""
    return loss_text + (f", {TRAINING_SPEED.written(speed)} {TRAINING_SPEED.unit}" if speed is not None else "")
