"""How far a sweep is: bars in a terminal, plain lines everywhere else."""

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

SECONDS_BETWEEN_LINES = 10.0  # a log of a batch system is read by people
STYLES = {RunStatus.COMPLETED: "green", RunStatus.OOM: "yellow", RunStatus.DIVERGED: "yellow"}
Clock = Callable[[], float]


def progress(
    *, total: int, skipped: int = 0, console: Console | None = None, clock: Clock = time.monotonic
) -> "PlainProgress":
    """Tells on stderr how far a sweep of `total` points is, of which `skipped` had their answer before.

    Bars where a person looks on; lines where the output is no terminal, or NO_COLOR or CI is set.
    """
    console = console or UnreadConsole(stderr=True)
    quiet = os.environ.get("NO_COLOR") or os.environ.get("CI", "").lower() not in ("", "0", "false")
    kind = PlainProgress if quiet or not console.is_interactive else LiveProgress
    return kind(total, skipped, console, clock)


class UnreadConsole(Console):
    """A console whose reader may leave (`| head`, a closed terminal): it falls silent, and the sweep goes on.

    In a notebook it writes plain lines: rich would make a display of each, and what moves a cursor moves none there.
    """

    def __init__(self, **settings: Any) -> None:
        if Console().is_jupyter:
            settings |= {"force_jupyter": False, "force_terminal": False}
        super().__init__(**settings)

    def on_broken_pipe(self) -> None:
        self.quiet = True


@dataclass
class Running:
    """The point that is being trained."""

    label: str
    number: int  # of the points of the sweep, from 1
    budget_examples: int
    started: float  # on the clock
    examples: int = 0
    loss: float | None = None
    examples_per_second: float | None = None
    first_examples: int | None = None  # at the first news: how fast it is, starting up not counted
    first_news: float = 0.0

    def seconds_left(self, now: float) -> float | None:
        """By its own pace, validations included; None where nothing is known of it."""
        pace = self.examples_per_second
        if self.first_examples is not None and self.examples > self.first_examples and now > self.first_news:
            pace = (self.examples - self.first_examples) / (now - self.first_news)
        return max(0, self.budget_examples - self.examples) / pace if pace and self.budget_examples else None

    def news(self, now: float) -> str:
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
    """One line when a point starts, one when it ends, and seldom one between."""

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
            have = "has its answer" if self.skipped == 1 else "have their answers"
            self.say(f"{self.skipped} of {self.total} points {have} already")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to put away."""

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        """A point begins; `label` is what tells it from the others; the budget is 0 until it is known."""
        self.points_started += 1
        self.running[run_id] = Running(printable(label), self.points_started, budget_examples, self.clock())
        self._started(self.running[run_id])

    def expect(self, run_id: str, budget_examples: int) -> None:
        """The point will train on so many examples: known once its data is loaded."""
        if run_id in self.running:
            self.running[run_id].budget_examples = budget_examples

    def update(self, run_id: str, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        """News of a running point."""
        if run_id not in self.running:
            return
        point = self.running[run_id]
        point.examples, point.loss, point.examples_per_second = examples, loss, examples_per_second
        if point.first_examples is None:
            point.first_examples, point.first_news = examples, self.clock()
        self._told(point)

    def finish(self, run_id: str, status: RunStatus, record: RunRecord | None) -> None:
        """A point ended, well or not; `record` is None where it left none."""
        point = self.running.pop(run_id, None)
        self.done += 1
        label = self._numbered(point) if point else printable(run_id)
        after = f" in {duration(self.clock() - point.started)}" if point else ""
        line = Text.assemble(f"{label}: ", (str(status), STYLES.get(status, "red")), f"{after}{_outcome(record)}")
        self._line(line)

    def abandon(self, run_id: str) -> None:
        """It is not run here after all."""
        if self.running.pop(run_id, None) is not None:
            self.points_started -= 1

    def say(self, text: str) -> None:
        """One line of its own."""
        self._line(Text(printable(text)))

    def _started(self, point: Running) -> None:
        self._line(Text(f"{self._numbered(point)}: started"))

    def _told(self, point: Running) -> None:
        now = self.clock()
        if now - self.last_line >= SECONDS_BETWEEN_LINES:
            of = f" of {point.budget_examples:,}" if point.budget_examples else ""
            self._line(Text(f"{self._numbered(point)}: {point.examples:,}{of} examples, {point.news(now)}"))

    def _numbered(self, point: Running) -> str:
        return f"[{point.number}/{self.total}] {point.label}"

    def _line(self, text: Text) -> None:
        self.last_line = self.clock()
        # A terminal wraps at words; a log is not wrapped, so that a line stays a line for grep.
        self.console.print(text, soft_wrap=not self.console.is_terminal, highlight=False)


class LiveProgress(PlainProgress):
    """Two bars at the bottom of the terminal: the points, and the one that runs; lines of ended points above."""

    def __init__(self, total: int, skipped: int, console: Console, clock: Clock) -> None:
        super().__init__(total, skipped, console, clock)
        # stdout stays alone: through a redirection the table would end in stderr.
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
            grid.add_row(self._bar("examples", bar, point.news(now)))
        points = ProgressBar(total=max(1, self.total), completed=self.done)
        grid.add_row(self._bar("points", points, f"{self.done} of {self.total} in {duration(now - self.began)}"))
        return grid

    def _bar(self, name: str, bar: ProgressBar, news: str) -> Table:
        row = Table.grid(padding=(0, 1))
        row.add_column(no_wrap=True, width=len("examples"))
        row.add_column(width=max(8, min(30, self.console.width - 58)))
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_row(name, bar, news)
        return row

    def _started(self, point: Running) -> None:
        """The bar tells it."""

    def _told(self, point: Running) -> None:
        """The bar tells it."""


def duration(seconds: float) -> str:
    """`6.1 s`, `2 min 05 s`, `3 h 20 min`: as exact as a person wants it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _outcome(record: RunRecord | None) -> str:
    """What a line has room for: the loss and speed of an answer, the reason of everything else."""
    if record is None:
        return ""
    if record.status is not RunStatus.COMPLETED:
        return f": {printable(record.reason)}" if record.reason else ""
    loss, speed = record.final.get(VALIDATION_LOSS.name), record.final.get(TRAINING_SPEED.name)
    told = f", {VALIDATION_LOSS.label} {VALIDATION_LOSS.written(loss)}" if loss is not None else ""
    return told + (f", {TRAINING_SPEED.written(speed)} {TRAINING_SPEED.unit}" if speed is not None else "")
