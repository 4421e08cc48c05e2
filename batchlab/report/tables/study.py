"""A folder of runs, read into tables: what every part of the report starts from."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchlab.config.key import requested
from batchlab.config.option_row import ALL_OF_A_RUN
from batchlab.config.published import Published, published
from batchlab.errors import BadRequest
from batchlab.printable import printable
from batchlab.recording.files import encodable
from batchlab.recording.flat_options import flat
from batchlab.recording.journal import read_journal
from batchlab.recording.results import row
from batchlab.recording.run_folder import METRICS, read_record, run_folders
from batchlab.recording.study_file import read_published
from batchlab.records import RunRecord
from batchlab.records.quantity import Quantity

NUMBERS = ("step", "examples", "train_seconds", "value", "low", "high", "n")  # of a measurement
NEEDED = ("seq", "value", "step", "examples", "train_seconds")  # of its line
# Columns that exist even without runs, so that readers need no check: all fields that take one cell of a row.
NO_COLUMN = ("run_id", "config", "environment", "target", "final", "best", "quantities", "changes_accepted")
ALWAYS = tuple(f.name for f in fields(RunRecord) if f.name not in NO_COLUMN)
TARGET = tuple(f"target.{name}" for name in ("metric", "value", "reached", "step", "examples", "train_seconds"))


@dataclass(frozen=True)
class Study:
    """A folder of runs, as tables."""

    name: str
    folder: Path
    runs: pd.DataFrame  # a row per run, however it ended, sorted by batch size and run_id (the index); see load_runs
    measurements: pd.DataFrame  # run_id, name, step, examples, train_seconds, value, low, high, n; nan for no value
    damaged: tuple[str, ...]  # a message for each run, or line of a journal, that could not be read
    # A row per run: its options as they were given, dotted, None if not set. `runs` has the resulting sizes of
    # micro-batches instead, so with `micro_batch_size=8` alone, accumulate varies with the batch size there.
    requested: pd.DataFrame = field(default_factory=pd.DataFrame)
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of each run, as typed
    declared: tuple[Quantity, ...] = ()  # quantities that the runs measured and the table of quantities lacks
    published: tuple[Published, ...] = ()  # results of others to compare its runs with, each once


def read_study(folder: Path) -> Study:
    """Every run in `folder`; what cannot be read is left out and reported, without affecting the rest.

    BadRequest if there is no such folder; a folder without runs gives a study without rows.
    """
    if not folder.is_dir():
        raise BadRequest(
            f"there is no folder {folder}: give a study's folder, such as runs/digits-mlp, from `batchlab list`"
        )
    damaged: list[str] = []
    rows: dict[str, dict[str, object]] = {}
    options: dict[str, dict[str, object]] = {}
    overrides: dict[str, tuple[str, ...]] = {}
    journals: list[tuple[str, pd.DataFrame]] = []
    figures = list(read_published(folder, damaged))
    declared: dict[Quantity, None] = {}
    for run in run_folders(folder):
        record = read_record(run, damaged)
        if record is None:
            continue
        if not (1 <= record.batch_size < 2**53 and abs(record.seed) < 2**63):
            damaged.append(f"{run} is out of range: its batch_size is {record.batch_size}, its seed {record.seed}")
            continue
        if encodable(record.run_id) in rows:
            damaged.append(f"{run} is left out: it is a copy of the run {printable(record.run_id)}")
            continue
        try:
            run_id = encodable(record.run_id)
            rows[run_id] = _encodable(row(record))
            options[run_id] = _encodable(_requested(record.config))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            damaged.append(f"{run} has a config that cannot be read: {error}")
            continue
        overrides[run_id] = tuple(map(encodable, record.overrides))
        journals.append((run_id, _journal(run, damaged)))
        declared |= dict.fromkeys(record.quantities)
        figures += (figure for figure in _published(run, record, damaged) if figure not in figures)
    runs = _runs(rows)
    settings = pd.DataFrame(list(options.values()), index=list(options), dtype=object).reindex(runs.index)
    settings = settings.where(settings.notna(), None)
    messages = tuple(map(printable, damaged))
    measurements = _measurements(journals)
    name = folder.resolve().name
    return Study(name, folder, runs, measurements, messages, settings, overrides, tuple(declared), tuple(figures))


def _requested(config: Mapping[str, object]) -> dict[str, object]:
    """The options that distinguish a run from others, dotted; two ways to request the same thing become one.

    Without accumulate and micro_batch_size it is accumulate=1, and a learning rate that is not scaled has no reference
    batch size.
    """
    options = flat(requested(config, ALL_OF_A_RUN))
    if options.get("accumulate") is None and options.get("micro_batch_size") is None:
        options["accumulate"] = 1
    if options.get("lr_scaling") == "none":
        options["reference_batch_size"] = None
    return options


def _published(run: Path, record: RunRecord, damaged: list[str]) -> tuple[Published, ...]:
    """The published figures in the record of a run, where older versions kept them."""
    try:
        return published(record.config.get("published", []))
    except BadRequest as error:
        damaged.append(f"{run} has figures that cannot be read: {error}")
        return ()


def _runs(rows: dict[str, dict[str, object]]) -> pd.DataFrame:
    columns = list(dict.fromkeys(itertools.chain(*rows.values(), ALWAYS, TARGET, ["device_model"])))
    runs = pd.DataFrame(list(rows.values()), columns=columns)
    runs["run_id"] = list(rows)
    return runs.sort_values(["batch_size", "run_id"], kind="stable").set_index("run_id").copy()


def _measurements(journals: list[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """All journals in one table; run ids are repeated, as a table per run would be larger than its numbers."""
    parts = [(run_id, part) for run_id, part in journals if len(part)]
    if not parts:
        return pd.DataFrame({"run_id": [], "name": []}, dtype=str).assign(
            **{name: pd.Series(dtype=float) for name in NUMBERS}
        )
    table = pd.concat([part for _, part in parts], ignore_index=True)
    ids = np.repeat(np.array([run_id for run_id, _ in parts], dtype=object), [len(part) for _, part in parts])
    table.insert(0, "run_id", ids)
    return table


def _journal(run: Path, damaged: list[str]) -> pd.DataFrame:
    """A run's measurements in their order, by the rules of `read_journal`, which reads all lines that are not plain."""
    path = run / METRICS
    try:
        content = path.read_bytes()
        # A torn last line does not count yet.
        return _plain(content[: content.rfind(b"\n") + 1].split(b"\n")[:-1])
    except FileNotFoundError:
        return _table([], {name: [] for name in NUMBERS})
    except OSError as error:
        damaged.append(f"{path} cannot be read: {error.strerror or error}")
        return _table([], {name: [] for name in NUMBERS})
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        broken: list[str] = []
        kept = read_journal(path, broken)
        more = f", and {len(broken) - 1} more such lines" if len(broken) > 1 else ""
        damaged.extend(sentence + more for sentence in broken[:1])
        return _table([m.name for m in kept], {name: [getattr(m, name) for m in kept] for name in NUMBERS})


def _plain(lines: list[bytes]) -> pd.DataFrame:
    """Lines as `Journal` writes them, parsed at once, ten times as fast; an error if one is different."""
    entries = json.loads((b"[" + b",".join(lines) + b"]").decode())
    if len(entries) != len(lines) or any(entry[key] is None for entry in entries for key in NEEDED):
        raise ValueError("not every line is a measurement")
    return _table([str(e["name"]) for e in entries], {name: [e.get(name) for e in entries] for name in NUMBERS})


def _table(names: list[str], columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """The columns of measurements without run_id; the texts for values that are not finite become numbers."""
    # float() reads "nan", "inf" and "-inf" as `recording.files.number` does.
    numbers = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    whole = np.concatenate([numbers["step"], numbers["examples"]])
    if any(column.ndim != 1 for column in numbers.values()) or not np.isfinite(whole).all():
        raise ValueError("a measurement is a number")
    known = {name: encodable(name) for name in set(names)}
    return pd.DataFrame({"name": np.array([known[name] for name in names], dtype=object), **numbers})


def _encodable(values: dict[str, object]) -> dict[str, object]:
    """pandas refuses a lone surrogate if it stores texts as Arrow."""
    return {encodable(k): encodable(v) if isinstance(v, str) else v for k, v in values.items()}


def each_run(measurements: pd.DataFrame, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The run id and curve of every run that has measurements called `name`, in the order they were taken."""
    of_it = measurements[measurements["name"] == name]
    for run_id, curve in of_it.groupby("run_id", sort=False):
        yield str(run_id), curve
