"""The tables of a study as files for other programs."""

import csv
import importlib.util
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from batchlab.config.options import RUN
from batchlab.errors import BadRequest
from batchlab.recording.files import to_json
from batchlab.recording.results import cell
from batchlab.report.tables.study import Study

COUNTS = {"step", "examples", "n", "n_train", "parameters"}
COUNTS |= {name for name, row in RUN.items() if row.type.startswith("int")}


def table(study: Study, *, measurements: bool) -> pd.DataFrame:
    """A row per run with its run_id first, or a row per measurement."""
    rows = study.measurements.copy() if measurements else study.runs.reset_index()
    for name in rows.columns:
        if str(name).rpartition(".")[2] in COUNTS and pd.api.types.is_float_dtype(rows[name]):
            known = rows[name].dropna()
            # A count that some runs lack is read as a float, which would be written as 12.0.
            if (known.abs() < 2**53).all() and (known % 1 == 0).all():
                rows[name] = rows[name].astype("Int64")
    return rows


def to_csv(rows: pd.DataFrame) -> bytes:
    """As in `results.csv`: an empty cell has no value; `nan` and `inf` are written; no text can run as a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell(str(name)) for name in rows.columns])
    writer.writerows([cell(value) for value in values] for values in _values(rows))
    return text.getvalue().encode()


def to_json_rows(rows: pd.DataFrame) -> bytes:
    """A list of objects, one per line; null is no value; `"nan"` and `"inf"` are not finite."""
    names = list(map(str, rows.columns))
    lines = (to_json(dict(zip(names, values, strict=True))) for values in _values(rows))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def to_parquet(rows: pd.DataFrame) -> bytes:
    """The same columns, numbers as numbers; BadRequest without pyarrow, which nothing else here needs."""
    if importlib.util.find_spec("pyarrow") is None:  # pandas would name two packages, in an error of many lines
        raise BadRequest(
            "--format parquet needs pyarrow, which is not installed: run `pip install pyarrow`, or use --format csv"
        )
    plain = rows.copy()
    for name in plain.columns:
        if not pd.api.types.is_numeric_dtype(plain[name]):
            plain[name] = _of_one_type(plain[name])
    file = io.BytesIO()
    plain.to_parquet(file, index=False)
    return file.getvalue()


FORMATS: dict[str, Callable[[pd.DataFrame], bytes]] = {"csv": to_csv, "parquet": to_parquet, "json": to_json_rows}


def _values(rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """The rows as Python's own numbers and texts, None for no value."""
    columns = []
    for name in rows.columns:
        values = rows[name].astype(object).tolist()
        # A measurement always has a value: a nan was measured.
        measured = name == "value"
        columns.append([None if _is_none(value) and not measured else value for value in values])
    return zip(*columns, strict=True)


def _of_one_type(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column of one type, as parquet requires: true and false stay, mixed types become text."""
    known = [value for value in column if not _is_none(value)]
    if known and all(isinstance(value, bool) for value in known):
        return column.astype("boolean")
    texts = [None if _is_none(value) else str(value) for value in column]
    return pd.Series(texts, index=column.index, dtype=object)


def _is_none(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
