"""`batchlab export`: the runs of a study, or their measurements, as a table for another program."""

import sys
from pathlib import Path

from batchlab.cli.output import complain, say
from batchlab.cli.parser import Parser
from batchlab.cli.quantities_text import by_unit
from batchlab.cli.studies import RUNS_DIR, find_study
from batchlab.errors import BadRequest, StorageError
from batchlab.printable import counted, printable
from batchlab.recording.disk import write_atomically

EXAMPLES = f"""\
examples:
  batchlab export digits-mlp                                      digits-mlp-runs.csv: a row per run
  batchlab export digits-mlp --measurements --format parquet      digits-mlp-measurements.parquet: a row for each
  batchlab export runs/digits-mlp --format json --output -        to stdout

The columns of runs are those of results.csv, described by `help(batchlab.load_runs)`; those of measurements are run_id,
name, step, examples, train_seconds (without measuring), value, low and high (a 95% interval), n (its sample size).
The units of the measurements (`final.NAME` of a run) follow; 1 means no unit. Those of an instrument of your own are in
the `quantities` of a run's record.json:
{by_unit()}

In Python: batchlab.load_runs("runs/digits-mlp")."""

FORMATS = ("csv", "parquet", "json")  # as in report.tables, whose import would need pandas
OTHER_FORMATS = ("xlsx", "xls", "ods", "tsv", "feather", "arrow", "html", "md", "xml", "pkl", "h5", "hdf5", "jsonl")


def parser() -> Parser:
    """Its arguments."""
    made = Parser("export", "Writes the runs of a study, or their measurements, as a table.", EXAMPLES)
    made.add_argument("study", metavar="STUDY", help="a study's name or path")
    made.add_argument("--format", choices=FORMATS, help="format of the file (by --output's ending, else csv)")
    made.add_argument("--measurements", action="store_true", help="a row per measurement, not per run")
    made.add_argument("--output", metavar="FILE", help="file to write (STUDY-runs.csv in this folder); - is stdout")
    made.add_argument("--runs-dir", default=RUNS_DIR, metavar="DIR", help="folder of the studies (%(default)s)")
    return made


def main(arguments: list[str]) -> int:
    """Writes one table and prints its path."""
    given = parser().parse_args(arguments)
    written_as = given.format or _by_ending(given.output or "")
    folder = find_study(given.study, Path(given.runs_dir))

    from batchlab.report.tables import exports as tables
    from batchlab.report.tables.study import read_study

    study = read_study(folder)
    rows = tables.table(study, measurements=given.measurements)
    content = tables.FORMATS[written_as](rows)
    for sentence in study.damaged:
        complain(f"batchlab: {sentence}")
    kind = "measurements" if given.measurements else "runs"
    if given.output == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return 0
    path = Path(given.output or f"{study.name}-{kind}.{written_as}")
    if path.is_dir() or not path.parent.is_dir():
        why = f"{path} is a folder" if path.is_dir() else f"the folder {path.parent} does not exist"
        raise BadRequest(f"--output {path}: {why}; give a file, such as --output {study.name}.{written_as}")
    try:
        write_atomically(path, content)
    except StorageError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}; use --output FILE elsewhere") from error
    other = f", written as {written_as}" if path.suffix and path.suffix.lower() != f".{written_as}" else ""
    say(f"{counted(len(rows), kind.removesuffix('s'))} of {printable(study.name)} in {printable(path)}{other}")
    return 0


def _by_ending(output: str) -> str:
    """The format that the name of a file asks for: csv if it asks for none."""
    ending = Path(output).suffix.removeprefix(".").lower()
    if ending in FORMATS:
        return ending
    if ending in OTHER_FORMATS:
        raise BadRequest(
            f"--output {output}: batchlab writes {', '.join(FORMATS[:-1])} and {FORMATS[-1]}, not {ending}; "
            f"give another name, such as --output {Path(output).with_suffix('.csv')}, or add --format csv, which "
            f"writes csv into {output}"
        )
    return "csv"
