"""`results.csv`: one row per run, made again from the run folders at any time."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from batchlab.recording import disk
from batchlab.recording.files import number_or_word
from batchlab.recording.flat_options import flat, knobs
from batchlab.recording.run_folder import RESULTS, hold_study, read_records
from batchlab.records import RunRecord


def rows(study_dir: Path, unreadable: list[str] | None = None) -> list[dict[str, object]]:
    """One flat row per run, by batch size: the knobs first, then how it ended and what was measured.

    Names are dotted: `model.hidden`, `final.val/loss`, `best.val/loss.value`, `target.examples`. Damaged records are
    left out, and said in `unreadable` where one is handed in.
    """
    return [row(record) for record in read_records(study_dir, unreadable)]


def row(record: RunRecord) -> dict[str, object]:
    """The flat row of one run."""
    return knobs(record) | _outcome(record)


def write_results(study_dir: Path, unreadable: list[str] | None = None) -> Path:
    """Moves `results.csv` into place and returns its path; OSError where it cannot.

    Empty is "has none", not finite is `nan`, `inf` or `-inf`. A text that a spreadsheet would run as a formula gets
    a quote in front.
    """
    records = read_records(study_dir, unreadable)
    knob_rows, outcome_rows = [knobs(r) for r in records], [_outcome(r) for r in records]
    # Every run's knobs before any run's outcome, whatever the first run has.
    columns = list(dict.fromkeys(name for row in (*knob_rows, *outcome_rows) for name in row))
    text = io.StringIO()
    # The csv module and not pandas, whose import takes seconds of every sweep's end.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    for knob_row, outcome_row in zip(knob_rows, outcome_rows, strict=True):
        row = knob_row | outcome_row
        writer.writerow([cell(row.get(column)) for column in columns])
    path = study_dir / RESULTS
    with hold_study(study_dir):
        disk.write_atomically(path, text.getvalue())
    return path


def _outcome(record: RunRecord) -> dict[str, object]:
    """The record without its config, what it declares of quantities, and what its sweep was allowed; flat."""
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
        return number_or_word(value)
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
