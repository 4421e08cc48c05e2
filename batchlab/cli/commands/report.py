"""`batchlab report`: every claim judged, one recommendation, figures."""

import sys
from pathlib import Path

from batchlab.cli.parser import Parser
from batchlab.cli.studies import RUNS_DIR, find_study
from batchlab.errors import BadRequest

EXAMPLES = """\
examples:
  batchlab report digits-mlp                     the study runs/digits-mlp; files go into its folder
  batchlab report runs/digits-mlp --out /tmp/r   the same; files go into another folder
  batchlab report digits-mlp --no-files          in the terminal only, which is faster

It reads run folders and trains nothing; it needs no GPU and no PyTorch, so a copied study can be read anywhere.
Files: report.html (one page with its figures, without external content), report.md, report.json, figures/*.png.
A sweep of several points makes a report at its end, unless report=false."""


def parser() -> Parser:
    """Its arguments."""
    made = Parser("report", "Judges what a study says about batch size, and recommends one.", EXAMPLES)
    made.add_argument("study", metavar="STUDY", help="a study's name or path")
    made.add_argument("--out", metavar="DIR", help="folder for the files (the study's own)")
    made.add_argument("--no-files", action="store_true", help="write nothing, draw nothing")
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    return made


def main(arguments: list[str]) -> int:
    """Reads the study, writes the files, and prints the report."""
    given = parser().parse_args(arguments)
    if given.no_files and given.out is not None:
        raise BadRequest("--no-files writes nothing, so --out has no effect: leave out one of them")
    folder = find_study(given.study, Path(given.runs_dir))

    # Not before the study is found: pandas and matplotlib take seconds.
    from rich.console import Console

    from batchlab.report.making import make, write
    from batchlab.report.render.terminal import say_where, show

    # In a file, each row of a table stays on one line.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    report = make(folder)
    show(report, console)
    if not given.no_files:
        out = folder if given.out is None else Path(given.out)
        drawn = write(report, out)
        console.print()
        say_where(out, sum(drawing.figure is not None for drawing in drawn), console)
    return 0
