"""The output of `batchlab find`: a line for each probe, a table at the end, and one over all searches."""

import statistics
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from batchlab.printable import NOTHING, aligned, number, printable
from batchlab.science.memory.largest_fit import Outcome, Probe, line_through
from batchlab.sweep.find.find_sentences import KIB, OUTCOMES, mib, sentences
from batchlab.sweep.find.search import Search
from batchlab.sweep.summary.progress import UnreadConsole

STYLES = {Outcome.FITS: "green", Outcome.FAILED: "red"}


class Watcher:
    """Shows the progress of a search on stderr and its result on stdout."""

    def __init__(self, console: Console | None = None, output: Console | None = None) -> None:
        self.console = console or UnreadConsole(stderr=True)
        self.output = output or UnreadConsole(file=sys.stdout)

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.print(Text(printable(text)), soft_wrap=not self.console.is_terminal)

    def begin(self, label: str, position: int, of: int) -> None:
        """A search starts."""
        self.say("looking for the largest micro-batch" + (f" [{position}/{of}] {label}" if of > 1 else ""))

    def probe(self, probe: Probe) -> None:
        """A probe has finished."""
        parts = [f"{mib(probe.peak_bytes)} MiB"] if probe.fits else [f"in {probe.phase}"] if probe.phase else []
        if probe.step_seconds:
            parts += [f"{_milliseconds(probe)} ms per step", f"{_speed(probe)} examples/s"]
        if probe.reason:
            parts.append(printable(probe.reason))
        outcome = (OUTCOMES[probe.outcome], STYLES.get(probe.outcome, "yellow"))
        line = Text.assemble(f"micro-batch {probe.size:,}: ", outcome, "".join(f", {part}" for part in parts))
        self.console.print(line, soft_wrap=not self.console.is_terminal, highlight=False)

    def show(self, lines: Sequence[str]) -> None:
        """Prints a result; a terminal wraps its sentences at words."""
        for line in lines:
            self.output.print(Text(line), soft_wrap=not self.output.is_terminal, highlight=False)


def summary(search: Search) -> list[str]:
    """The table of the probes of one search, by size, and its result in sentences."""
    head = [""] + ([printable(search.label)] if search.label else [])
    if not search.exact:
        return [*head, *_table(search.as_runs), "", *sentences(search)]
    speeds = ["", "Speeds, with the memory allocation of a run:", *_table(search.timings)] if search.timings else []
    return [*head, *_table(search.probes), *speeds, "", *sentences(search)]


def comparison(searches: Sequence[Search]) -> list[str]:
    """One row for each of several searches."""
    titles = ["", "largest\nmicro-batch", "batch\nsize", "predicted", "error", "knee", "fixed\nMiB", "KiB per\nexample"]
    rows = []
    for search in searches:
        found, line = search.found, line_through(search.probes)
        largest, error = (found.largest, found.error) if found else (None, None)
        rows.append(
            [
                printable(search.label),
                f"{largest:,}" if largest else search.status,
                f"{largest * search.accumulate:,}" if largest else NOTHING,
                f"{found.predicted.size:,}" if found and found.predicted else NOTHING,
                NOTHING if error is None else f"{error:+.1%}",
                f"{search.knee.size:,}" if search.knee and search.alone else NOTHING,
                mib(line.fixed) if line else NOTHING,
                number(line.per_example / KIB, ",.1f") if line else NOTHING,
            ]
        )
    return ["", *aligned(titles, rows, left=(0,))]


def _table(probes: Sequence[Probe]) -> list[str]:
    titles = ["micro-\nbatch", "outcome", "phase", "peak\nMiB", "ms per\nstep", "steps\ntimed", "examples\n/s"]
    busy = any(probe.busy_share is not None for probe in probes)
    titles += ["device\nbusy"] if busy else []
    rows = [
        [
            f"{p.size:,}",
            OUTCOMES[p.outcome],
            p.phase or NOTHING,
            mib(p.peak_bytes) if p.fits else NOTHING,
            _milliseconds(p),
            str(len(p.step_seconds)) if p.step_seconds else NOTHING,
            _speed(p),
            *([NOTHING if p.busy_share is None else f"{p.busy_share:.0%}"] if busy else []),
        ]
        for p in sorted(probes, key=lambda probe: probe.size)
    ]
    return aligned(titles, rows, left=(1, 2))


def _milliseconds(probe: Probe) -> str:
    if not probe.step_seconds:
        return NOTHING
    milliseconds = 1000 * statistics.median(probe.step_seconds)
    return number(milliseconds, ".4g" if milliseconds < 1000 else ",.0f")


def _speed(probe: Probe) -> str:
    if not probe.step_seconds:
        return NOTHING
    return number(probe.size * probe.accumulate / statistics.median(probe.step_seconds), ",.0f")
