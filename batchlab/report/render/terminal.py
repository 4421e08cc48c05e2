"""The report in a terminal: the recommendation first, then what is known, then what is missing."""

from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from batchlab.printable import printable
from batchlab.recording.run_folder import FIGURES
from batchlab.report.render.content import Table, claims_table, published_table, summary, what_is_missing
from batchlab.report.render.fits_in_words import fits_in_words
from batchlab.report.report import HTML, JSON, MARKDOWN, Report

STYLES = {
    "supported": "green",
    "contradicted": "red",
    "mixed": "yellow",
    "inconclusive": "yellow",
    "not tested": "dim",
}
MOST_COMMANDS = 8  # under what is missing; the files have all of them


def show(report: Report, console: Console) -> None:
    """Prints the whole report except the figures."""
    _head(console, f"Study {printable(report.study.name)}")
    _say(console, summary(report.study))
    console.print()
    recommend(report, console)
    console.print()
    _head(console, "Claims")
    _table(claims_table(report.claims), console)
    if report.published:
        console.print()
        _head(console, "Published")
        _table(published_table(report.published), console)
    for line in fits_in_words(report.fits):
        if line.title:
            console.print()
            _head(console, line.title)
        _say(console, f"{line.label}: {line.text}" if line.label else line.text)
        if line.table is not None:
            _table(line.table, console)
    gaps = list(what_is_missing(report))
    if gaps:
        console.print()
        _head(console, "What is missing")
    for gap in gaps[:MOST_COMMANDS]:
        _say(console, f"- {gap.what}")
        if gap.command:
            console.print(Text(f"    {printable(gap.command)}", style="dim"), soft_wrap=True)
    if len(gaps) > MOST_COMMANDS:
        _say(console, f"- and {len(gaps) - MOST_COMMANDS} more, in {MARKDOWN}")


def recommend(report: Report, console: Console) -> None:
    """What to do, how reliable that is, and the command."""
    _head(console, "Recommendation")
    _say(console, printable(report.recommendation.text))
    if report.recommendation.sure:
        _say(console, printable(report.recommendation.sure))
    if report.recommendation.command:
        console.print(Text(printable(report.recommendation.command), style="bold"), soft_wrap=True)


def say_where(folder: Path, figures: int, console: Console) -> None:
    """Prints which files were written."""
    place = printable(folder)
    kinds = f"{HTML}, {MARKDOWN}, {JSON}" + (f", {FIGURES}/ ({figures})" if figures else "")
    console.print(Text(f"Report: {place}/{{{kinds}}}", style="bold"), soft_wrap=True)


def _table(cells: Table, console: Console) -> None:
    table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in cells.titles:
        table.add_column(
            title, header_style="bold", no_wrap=title in ("claim", "verdict", "batch size"), overflow="fold"
        )
    for row in cells.rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console.print(table)
    if cells.note:
        _say(console, cells.note)


def _head(console: Console, title: str) -> None:
    console.print(Text(title, style="bold underline"))


def _say(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=not console.is_terminal)
