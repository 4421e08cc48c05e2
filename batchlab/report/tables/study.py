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
# Columns that are there even where no run is, so that no reader has to ask: all that a row has one cell for.
NO_COLUMN = ("run_id", "config", "environment", "target", "final", "best", "quantities", "changes_accepted")
ALWAYS = tuple(f.name for f in fields(RunRecord) if f.name not in NO_COLUMN)
TARGET = tuple(f"target.{name}" for name in ("metric", "value", "reached", "step", "examples", "train_seconds"))


@dataclass(frozen=True)
class Study:
    """A folder of runs, as tables."""

    name: str
    folder: Path
    runs: pd.DataFrame  # a row per run, however it ended, by batch size and run_id, which is the index; see load_runs
    measurements: pd.DataFrame  # run_id, name, step, examples, train_seconds, value, low, high, n; nan where none
    damaged: tuple[str, ...]  # a sentence for each run, or line of a journal, that could not be read
    # A row per run: its options as they were given, dotted, None where not set. In `runs` the sizes of micro-batches
    # are what came of it, so of `micro_batch_size=8` alone the two vary together there.
    asked: pd.DataFrame = field(default_factory=pd.DataFrame)
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of each run, as they were typed
    declared: tuple[Quantity, ...] = ()  # of what the runs measured, besides the table of quantities
    published: tuple[Published, ...] = ()  # figures of others, each once, that its runs were made to stand beside


def read_study(folder: Path) -> Study:
    """Every run in `folder`; what cannot be read is left out and said, and harms nothing else.

    BadRequest where there is no such folder; one without runs is a study without rows.
    """
    if not folder.is_dir():
        raise BadRequest(f"there is no folder {folder}: name a study's, such as runs/digits-mlp; `batchlab list`")
    damaged: list[str] = []
    rows: dict[str, dict[str, object]] = {}
    asked: dict[str, dict[str, object]] = {}
    overrides: dict[str, tuple[str, ...]] = {}
    journals: list[tuple[str, pd.DataFrame]] = []
    figures = list(read_published(folder, damaged))
    declared: dict[Quantity, None] = {}
    for run in run_folders(folder):
        record = read_record(run, damaged)
        if record is None:
            continue
        if not (1 <= record.batch_size < 2**53 and abs(record.seed) < 2**63):
            damaged.append(f"{run} cannot be: its batch_size is {record.batch_size}, its seed {record.seed}")
            continue
        if encodable(record.run_id) in rows:
            damaged.append(f"{run} holds a copy of the run {printable(record.run_id)}: left out")
            continue
        try:
            run_id = encodable(record.run_id)
            rows[run_id] = _encodable(row(record))
            asked[run_id] = _encodable(_asked(record.config))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            damaged.append(f"{run} has a config that cannot be read: {error}")
            continue
        overrides[run_id] = tuple(map(encodable, record.overrides))
        journals.append((run_id, _journal(run, damaged)))
        declared |= dict.fromkeys(record.quantities)
        figures += (figure for figure in _published(run, record, damaged) if figure not in figures)
    runs = _runs(rows)
    settings = pd.DataFrame(list(asked.values()), index=list(asked), dtype=object).reindex(runs.index)
    settings = settings.where(settings.notna(), None)
    said = tuple(map(printable, damaged))
    measurements = _measurements(journals)
    name = folder.resolve().name
    return Study(name, folder, runs, measurements, said, settings, overrides, tuple(declared), tuple(figures))


def _asked(config: Mapping[str, object]) -> dict[str, object]:
    """What tells a run from others, dotted: two ways of asking for one thing are one.

    Neither accumulate nor micro_batch_size is accumulate=1, and a rate that is not scaled has no batch size to be
    scaled from.
    """
    asked = flat(requested(config, ALL_OF_A_RUN))
    if asked.get("accumulate") is None and asked.get("micro_batch_size") is None:
        asked["accumulate"] = 1
    if asked.get("lr_scaling") == "none":
        asked["reference_batch_size"] = None
    return asked


def _published(run: Path, record: RunRecord, damaged: list[str]) -> tuple[Published, ...]:
    """Those that a run of an older version has in its own record."""
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
    """All journals in one table; run ids are repeated here, for a table of each run costs more than its numbers."""
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
    """A run's measurements in their order, by the rules of `read_journal`, which reads whatever is not plain."""
    path = run / METRICS
    try:
        content = path.read_bytes()
        # A torn last line is no line yet.
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
    """Lines that are all as `Journal` writes them, parsed in one go: ten times as fast; an error where one is not."""
    entries = json.loads((b"[" + b",".join(lines) + b"]").decode())
    if len(entries) != len(lines) or any(entry[key] is None for entry in entries for key in NEEDED):
        raise ValueError("not every line is a measurement")
    return _table([str(e["name"]) for e in entries], {name: [e.get(name) for e in entries] for name in NUMBERS})


def _table(names: list[str], columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    """The columns of measurements without run_id; the words for what is not finite become numbers."""
    # float() of "nan", "inf" and "-inf" is what `recording.files.number` makes of them.
    numbers = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    whole = np.concatenate([numbers["step"], numbers["examples"]])
    if any(column.ndim != 1 for column in numbers.values()) or not np.isfinite(whole).all():
        raise ValueError("a measurement is a number")
    known = {name: encodable(name) for name in set(names)}
    return pd.DataFrame({"name": np.array([known[name] for name in names], dtype=object), **numbers})


def _encodable(values: dict[str, object]) -> dict[str, object]:
    """A lone surrogate is refused by pandas where it keeps texts as Arrow does."""
    return {encodable(k): encodable(v) if isinstance(v, str) else v for k, v in values.items()}


def each_run(measurements: pd.DataFrame, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The run id and curve of every run that has measurements called `name`, in the order they were taken."""
    of_it = measurements[measurements["name"] == name]
    for run_id, curve in of_it.groupby("run_id", sort=False):
        yield str(run_id), curve
