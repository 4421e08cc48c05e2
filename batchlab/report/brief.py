"""The report at the end of a sweep, in a separate process: writes the files and prints a short summary."""

import sys
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.text import Text

from batchlab.errors import BatchlabError
from batchlab.printable import printable
from batchlab.report.making import make, write
from batchlab.report.render.content import counts_of_verdicts
from batchlab.report.render.terminal import say_where


def main(folder: Path, *, width: int | None, about: Collection[str] = ()) -> int:
    """Makes and writes the report of a study, and prints what it recommends for the runs `about`.

    Returns 1 if it cannot, with one line on stderr.
    """
    try:
        report = make(folder, about)
        drawn = write(report, folder)
    except BatchlabError as error:
        sys.stderr.write(f"{printable(error)}\n")
        return 1
    console = Console(highlight=False, width=width or 180, force_terminal=width is not None)
    console.print(Text(printable(report.recommendation.headline), style="bold"), soft_wrap=width is None)
    if report.recommendation.but:
        console.print(Text(printable(report.recommendation.but)), soft_wrap=width is None)
    console.print(Text(f"Claims: {counts_of_verdicts(report.claims)}."), soft_wrap=width is None)
    say_where(folder, sum(drawing.figure is not None for drawing in drawn), console)
    return 0
