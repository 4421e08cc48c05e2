"""`batchlab compare`: two studies side by side."""

from pathlib import Path

from batchlab.cli.output import say
from batchlab.cli.parser import Parser
from batchlab.cli.studies import RUNS_DIR, find_study
from batchlab.errors import BadRequest

EXAMPLES = """\
Shows how their settings differ, how the measurements differ at the points that both have (paired seed by seed, with 95%
intervals), and how each study judges the claims. An option that has one value in each study, such as model.width=128
in one and 256 in the other, is what is compared: points are paired although it differs.

examples:
  batchlab compare quick quick-on-the-gpu
  batchlab compare runs/width128 runs/width256"""


def parser() -> Parser:
    """Its arguments."""
    made = Parser("compare", "Shows two studies side by side.", EXAMPLES)
    made.add_argument("first", metavar="STUDY", help="a study's name or path")
    made.add_argument("second", metavar="OTHER_STUDY", help="another study's name or path")
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    return made


def main(arguments: list[str]) -> int:
    """Reads run folders only: needs neither torch nor the device on which they were made."""
    given = parser().parse_args(arguments)
    folders = [find_study(name, Path(given.runs_dir)) for name in (given.first, given.second)]
    if folders[0].resolve() == folders[1].resolve():
        both = f"'{given.first}' and '{given.second}' are the same study"
        raise BadRequest(f"{both}: give two different ones; `batchlab list` shows them")

    # Not at the top: pandas takes a second to import, and the message of a mistake should not wait for it.
    from batchlab.report.claims import judge_claims
    from batchlab.report.compare.compare_table import lines
    from batchlab.report.compare.comparison import compare
    from batchlab.report.tables.study import read_study

    first, second = (read_study(folder) for folder in folders)
    for line in lines(compare((first, second), (judge_claims(first), judge_claims(second)))):
        say(line)
    return 0
