"""Loads a user's table from a CSV file: columns of numbers and words, and a target to predict."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchlab import BadRequest, Task
from batchlab.data.tabular import Table, task_of

MOST_WORDS = 100  # per column, each becomes a column of 0 and 1; more are names or free text
MOST_CLASSES = 20  # integers with at most this many different values are classes, unless `kind` says otherwise
SEPARATORS = (";", "\t", "|", ",")


def load(
    path: str | None = None,
    target: str | None = None,
    kind: str | None = None,
    leave_out: Sequence[str] = (),
    missing: str = "refuse",
    separator: str = ",",
    val_share: float = 0.2,
    train_size: int | None = None,
    label_noise: float = 0.0,
) -> Task:
    """Rows (examples, columns) of a CSV file with a header line, and the column `target` to predict from the others.

    Columns of numbers are standardised; a column of words becomes a column of 0 and 1 for each word. `kind` is
    `classification` (words, or integers with few values) or `regression`; null decides by the column. `missing`
    values are refused, or their rows are left out (`drop`).
    """
    rows = _read(path, separator)
    if target is None or str(target) not in rows:
        problem = f"data.target={target} is not a column" if target is not None else "data=csv needs data.target=..."
        raise BadRequest(f"{problem}: {path} has the columns {_listed(rows.columns)}")
    target = str(target)  # a title may be a number, such as 2024
    names = [leave_out] if isinstance(leave_out, str) else [str(name) for name in leave_out]
    for name in names:
        if name not in rows or name == target:
            raise BadRequest(
                f"data.leave_out={name} is invalid: name columns other than the target; {path} has "
                f"{_listed(rows.columns)}"
            )
    if len(set(names)) == rows.shape[1] - 1:
        raise BadRequest(f"data.leave_out=[{','.join(names)}] leaves no column of {path} to predict '{target}' from")
    rows = _whole(rows.drop(columns=names), path, missing)
    inputs, measured = _inputs(rows.drop(columns=target), path)
    targets, classes = _targets(rows[target], path, kind)
    table = Table(f"data.path={path}", inputs, measured, targets, classes)
    return task_of(table, val_share=val_share, train_size=train_size, label_noise=label_noise)


def _read(path: str | None, separator: str) -> pd.DataFrame:
    if path is None:
        raise BadRequest("data=csv needs data.path=my_table.csv and data.target=..., the column to predict")
    if not isinstance(separator, str) or len(separator) != 1:
        raise BadRequest(f"data.separator={separator} is invalid: it must be one character, such as data.separator=';'")
    file = Path(str(path))
    if not file.is_file():
        raise BadRequest(f"data.path={path} is not a file: give the path of a CSV file, relative to {Path.cwd()}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            filled = filter(None, csv.reader(opened, delimiter=separator))
            titles, first = next(filled, []), next(filled, [])
        _refuse_one_column(path, titles, separator)
        rows = pd.read_csv(file, sep=separator, low_memory=False, encoding="utf-8-sig", skipinitialspace=True)
    except OSError as error:
        raise BadRequest(f"data.path={path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadRequest(f"data.path={path} cannot be read as a CSV file: {reason}") from None
    # Pandas renames the second of two equal titles; if rows are too long, it uses their first values as row names.
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise BadRequest(f"data.path={path} has the column '{twice[0]}' more than once: rename one of them")
    if len(first) > len(titles):
        raise BadRequest(f"data.path={path} has rows with more values than there are titles in its first line")
    if len(rows) < 2 or rows.shape[1] < 2:
        raise BadRequest(
            f"data.path={path} has {len(rows)} rows of {rows.shape[1]} columns: it needs a header line and at least "
            f"two rows of two columns or more, separated by data.separator='{separator}'"
        )
    return rows


def _refuse_one_column(path: str, titles: Sequence[str], separator: str) -> None:
    """BadRequest for an empty file, and for one whose columns have another separator."""
    if not titles:
        raise BadRequest(f"data.path={path} is invalid: the file is empty")
    others = [other for other in SEPARATORS if other != separator and other in titles[0]]
    if len(titles) == 1 and others:
        typed = "$'data.separator=\"\\t\"'" if others[0] == "\t" else f"'data.separator=\"{others[0]}\"'"
        raise BadRequest(
            f"data.path={path}: only one column was found with the separator '{separator}'; its first line contains "
            f"{'a tab' if others[0] == chr(9) else repr(others[0])}: add {typed}"
        )


def _whole(rows: pd.DataFrame, path: str | None, missing: str) -> pd.DataFrame:
    """The rows without missing values; BadRequest if there are some and `missing` does not allow them."""
    if missing not in ("refuse", "drop"):
        raise BadRequest(f"data.missing={missing} is invalid: use refuse, or drop to leave out rows with missing ones")
    without = rows.isna().sum()
    gaps = [f"'{name}' ({count:,})" for name, count in without.items() if count]
    if gaps and missing == "refuse":
        raise BadRequest(
            f"data.path={path} has missing values in {', '.join(gaps[:5])}"
            + (f" and {len(gaps) - 5} more columns" if len(gaps) > 5 else "")
            + ": fill them in, leave out those rows with data.missing=drop, or the columns with data.leave_out=[...]"
        )
    whole = rows.dropna()
    if len(whole) < 2:
        raise BadRequest(f"data.path={path} has {len(whole)} rows without missing values: leave columns out instead")
    return whole


def _inputs(rows: pd.DataFrame, path: str | None) -> tuple[Any, Any]:
    """The columns as numbers, and which of them to standardise."""
    columns: list[Any] = []
    measured: list[bool] = []
    for name, column in rows.items():
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float64)
            if not np.isfinite(values).all():
                raise BadRequest(f"data.path={path} has infinite values in '{name}': remove them")
            columns.append(values[:, None])
            measured.append(True)
            continue
        words = _words(column, path)
        # The words of all rows, so that the size of the model does not depend on the split.
        known = sorted(set(words))
        if len(known) > MOST_WORDS:
            raise BadRequest(
                f"data.path={path} has {len(known):,} different texts in '{name}', too many to be categories: leave "
                f"it out with data.leave_out=[{name}]"
            )
        columns.append((words.to_numpy()[:, None] == np.array(known, dtype=object)[None, :]).astype(np.float64))
        measured.extend([False] * len(known))
    return np.concatenate(columns, axis=1), np.array(measured)


def _words(column: "pd.Series[Any]", path: str | None) -> "pd.Series[Any]":
    """A column of words; BadRequest if most of them are numbers, because then the others are mistakes."""
    words = column.astype(str).astype(object)
    numbers = pd.to_numeric(words, errors="coerce").notna()
    if numbers.mean() >= 0.5 and not numbers.all():
        row = int(np.flatnonzero(~numbers.to_numpy())[0])
        raise BadRequest(
            f"data.path={path} has numbers in '{column.name}', but in line {column.index[row] + 2} "
            f"{str(words.iloc[row])[:40]!r}: fix it, or leave out the column with data.leave_out=[{column.name}]"
        )
    return words


def _targets(column: "pd.Series[Any]", path: str | None, kind: str | None) -> tuple[Any, int | None]:
    """Classes from 0 on and how many there are, or numbers and None."""
    if kind not in (None, "classification", "regression"):
        raise BadRequest(f"data.kind={kind} is invalid: use classification, regression, or null to decide by the data")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    few = column.nunique() <= MOST_CLASSES
    if kind is None:
        kind = "regression" if numeric and not (pd.api.types.is_integer_dtype(column) and few) else "classification"
    if kind == "regression":
        if not numeric or not np.isfinite(column.to_numpy(dtype=np.float64)).all():
            raise BadRequest(
                f"data.kind=regression is invalid: '{column.name}' of {path} has values that are not numbers; use "
                "data.kind=classification"
            )
        return column.to_numpy(dtype=np.float64), None
    known, labels = np.unique(column.to_numpy() if numeric else _words(column, path).to_numpy(), return_inverse=True)
    if len(known) < 2 or len(known) > len(column) // 2:
        raise BadRequest(
            f"'{column.name}' of {path} has {len(known):,} different values in {len(column):,} rows, which cannot be "
            "learnt as classes: use another data.target" + (", or data.kind=regression" if numeric else "")
        )
    return labels, len(known)


def _listed(columns: Any) -> str:
    names = [str(name) for name in columns]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
