"""A table of the user's, from a CSV file: numbers, words and what is to be told from them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchlab import BadRequest, Task
from batchlab.data.tabular import Table, task_of

MOST_WORDS = 100  # that a column may have, each a column of 0 and 1; more are names or free text
MOST_CLASSES = 20  # whole numbers up to so many different ones are classes, unless `kind` says otherwise


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
    """Rows (examples, columns) of a CSV file with a line of titles, and the column `target` to be told from the others.

    Columns of numbers are brought to one scale, columns of words become one of 0 and 1 for each word. `kind` is
    `classification` (words, or whole numbers of few values) or `regression`; null decides by the column. `missing`
    values are refused, or their rows left out (`drop`).
    """
    rows = _read(path, separator)
    if str(target) not in rows:
        asked = f"data.target={target} is no column" if target is not None else "data=csv needs data.target=..."
        raise BadRequest(f"{asked}: {path} has the columns {_listed(rows.columns)}")
    target = str(target)  # 2024 is a title too
    names = [leave_out] if isinstance(leave_out, str) else [str(name) for name in leave_out]
    for name in names:
        if name not in rows or name == target:
            raise BadRequest(
                f"data.leave_out={name} cannot be: it names columns other than the target, and {path} has "
                f"{_listed(rows.columns)}"
            )
    if len(set(names)) == rows.shape[1] - 1:
        raise BadRequest(f"data.leave_out=[{','.join(names)}] leaves no column of {path} to tell '{target}' from")
    rows = _whole(rows.drop(columns=names), path, missing)
    inputs, measured = _inputs(rows.drop(columns=target), path)
    targets, classes = _targets(rows[target], path, kind)
    table = Table(f"data.path={path}", inputs, measured, targets, classes)
    return task_of(table, val_share=val_share, train_size=train_size, label_noise=label_noise)


def _read(path: str | None, separator: str) -> pd.DataFrame:
    if path is None:
        raise BadRequest("data=csv needs data.path=my_table.csv, and data.target=..., the column to tell")
    if not isinstance(separator, str) or len(separator) != 1:
        raise BadRequest(f"data.separator={separator} cannot be: it is one character, such as data.separator=';'")
    file = Path(str(path))
    if not file.is_file():
        raise BadRequest(f"data.path={path} is no file here: name a CSV file, seen from {Path.cwd()}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            filled = filter(None, csv.reader(opened, delimiter=separator))
            titles, first = next(filled, []), next(filled, [])
        rows = pd.read_csv(file, sep=separator, low_memory=False, encoding="utf-8-sig", skipinitialspace=True)
    except OSError as error:
        raise BadRequest(f"data.path={path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:  # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadRequest(f"data.path={path} is no CSV file that can be read: {reason}") from None
    # Of a title that is there twice, pandas renames the second; of a row that is too long, it takes the first as names.
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise BadRequest(f"data.path={path} has the column '{twice[0]}' more than once: give each a name of its own")
    if len(first) > len(titles):
        raise BadRequest(f"data.path={path} has rows with more values than its first line has titles")
    if len(rows) < 2 or rows.shape[1] < 2:
        raise BadRequest(
            f"data.path={path} has {len(rows)} rows of {rows.shape[1]} columns: it takes a line of titles, and rows of "
            f"two columns or more, told apart by data.separator='{separator}'"
        )
    return rows


def _whole(rows: pd.DataFrame, path: str | None, missing: str) -> pd.DataFrame:
    """The rows without missing values; BadRequest where there are some, and nothing was said of them."""
    if missing not in ("refuse", "drop"):
        raise BadRequest(f"data.missing={missing} cannot be: use refuse, or drop to leave rows with missing values out")
    without = rows.isna().sum()
    gaps = [f"'{name}' ({count:,})" for name, count in without.items() if count]
    if gaps and missing == "refuse":
        raise BadRequest(
            f"data.path={path} has missing values in {', '.join(gaps[:5])}"
            + (f" and {len(gaps) - 5} more columns" if len(gaps) > 5 else "")
            + ": fill them in, leave those rows out with data.missing=drop, or the columns with data.leave_out=[...]"
        )
    whole = rows.dropna()
    if len(whole) < 2:
        raise BadRequest(f"data.path={path} has {len(whole)} rows without missing values: leave columns out instead")
    return whole


def _inputs(rows: pd.DataFrame, path: str | None) -> tuple[Any, Any]:
    """The columns as numbers, and which of them are brought to one scale."""
    columns: list[Any] = []
    measured: list[bool] = []
    for name, column in rows.items():
        if pd.api.types.is_numeric_dtype(column):
            values = column.to_numpy(dtype=np.float64)
            if not np.isfinite(values).all():
                raise BadRequest(f"data.path={path} has infinite values in '{name}': take them out")
            columns.append(values[:, None])
            measured.append(True)
            continue
        words = _words(column, path)
        # The words of all rows: those that validation alone has must not change the size of the model.
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
    """A column of words; BadRequest where most of them are numbers, for then the others are mistakes."""
    words = column.astype(str).astype(object)
    numbers = pd.to_numeric(words, errors="coerce").notna()
    if numbers.mean() >= 0.5 and not numbers.all():
        row = int(np.flatnonzero(~numbers.to_numpy())[0])
        raise BadRequest(
            f"data.path={path} has numbers in '{column.name}', and in line {column.index[row] + 2} "
            f"{str(words.iloc[row])[:40]!r}: mend it, or leave the column out with data.leave_out=[{column.name}]"
        )
    return words


def _targets(column: "pd.Series[Any]", path: str | None, kind: str | None) -> tuple[Any, int | None]:
    """Classes from 0 with their number, or numbers with None."""
    if kind not in (None, "classification", "regression"):
        raise BadRequest(f"data.kind={kind} cannot be: use classification, regression, or null for what the column is")
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    few = column.nunique() <= MOST_CLASSES
    if kind is None:
        kind = "regression" if numeric and not (pd.api.types.is_integer_dtype(column) and few) else "classification"
    if kind == "regression":
        if not numeric or not np.isfinite(column.to_numpy(dtype=np.float64)).all():
            raise BadRequest(
                f"data.kind=regression cannot be: '{column.name}' of {path} is not numbers throughout; use "
                "data.kind=classification"
            )
        return column.to_numpy(dtype=np.float64), None
    known, labels = np.unique(column.to_numpy() if numeric else _words(column, path).to_numpy(), return_inverse=True)
    if len(known) < 2 or len(known) > len(column) // 2:
        raise BadRequest(
            f"'{column.name}' of {path} has {len(known):,} different values in {len(column):,} rows, which are no "
            "classes to learn: name another data.target" + (", or data.kind=regression" if numeric else "")
        )
    return labels, len(known)


def _listed(columns: Any) -> str:
    names = [str(name) for name in columns]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
