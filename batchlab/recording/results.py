"""`results.csv`: one row per run, which can be rebuilt from the run folders at any time."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from batchlab.recording import disk
from batchlab.recording.files import number_or_name
from batchlab.recording.flat_options import flat, flat_options
from batchlab.recording.run_folder import RESULTS, hold_study, read_records
from batchlab.records import RunRecord


def rows(study_dir: Path, unreadable: list[str] | None = None) -> list[dict[str, object]]:
    """One flat row per run, sorted by batch size: the options first, then how it ended and what was measured.

    Names are dotted: `model.hidden`, `final.val/loss`, `best.val/loss.value`, `target.examples`. Damaged records are
    left out and listed in `unreadable`, if given.
    """
    return [row(record) for record in read_records(study_dir, unreadable)]


def row(record: RunRecord) -> dict[str, object]:
    """The flat row of one run."""
    return flat_options(record) | _outcome(record)


def write_results(study_dir: Path, unreadable: list[str] | None = None) -> Path:
    """Writes `results.csv` atomically and returns its path; OSError on failure.

    A missing value is an empty cell; numbers that are not finite are `nan`, `inf` or `-inf`. Text that a spreadsheet
    would run as a formula gets a leading quote.
    """
    records = read_records(study_dir, unreadable)
    option_rows, outcome_rows = [flat_options(r) for r in records], [_outcome(r) for r in records]
    # All option columns before all outcome columns, whatever the first run has.
    columns = list(dict.fromkeys(name for row in (*option_rows, *outcome_rows) for name in row))
    text = io.StringIO()
    # The csv module and not pandas, whose import would delay the end of every sweep by seconds.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    for option_row, outcome_row in zip(option_rows, outcome_rows, strict=True):
        row = option_row | outcome_row
        writer.writerow([cell(row.get(column)) for column in columns])
    path = study_dir / RESULTS
    with hold_study(study_dir):
        disk.write_atomically(path, text.getvalue())
    return path


def _outcome(record: RunRecord) -> dict[str, object]:
    """The record as a flat row, without its config, its declared quantities and `changes_accepted`."""
    values = record.to_dict()
    del values["config"], values["quantities"], values["changes_accepted"]
    values["status"] = record.status.value
    values["device_model"] = record.device_model
    values["overrides"] = " ".join(record.overrides)
    if values["target"] is None:
        del values["target"]
    return flat(values)


def cell(value: Any) -> Any:
    """A value as a cell of a CSV file."""
    if isinstance(value, float) and not math.isfinite(value):
        return number_or_name(value)
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
