"""Compares each precision with fp32 in speed, memory and loss, between points with equal settings and seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchlab.config import key
from batchlab.config.option_row import ALL_OF_A_RUN, Role
from batchlab.config.options import of_role
from batchlab.printable import NOTHING, aligned, counted, printable
from batchlab.records import RunRecord, RunStatus
from batchlab.records.quantities import PEAKS, SAVED_FOR_BACKWARD, TRAINING_SPEED
from batchlab.records.quantity import RATIO, Quantity
from batchlab.sweep.summary.table_columns import Setting
from batchlab.sweep.summary.table_quantities import in_tables, measured

REFERENCE = "fp32"
NOT_PAIRED = ("precision", *of_role(Role.REPEATED))
TITLES = {
    TRAINING_SPEED: "speed",
    PEAKS[0]: "peak\nmemory",
    SAVED_FOR_BACKWARD: "saved for\nbackward",
}  # of ratios: no unit

Pair = tuple[RunRecord, RunRecord]  # of one seed: in the precision, in fp32


@dataclass(frozen=True)
class Comparison:
    """The completed points of one precision that have a counterpart in fp32 with the same seed."""

    labels: tuple[str, ...]  # batch size, the settings that distinguish the points, precision
    pairs: tuple[Pair, ...]


def against_fp32(records: Sequence[RunRecord], settings: Sequence[Setting]) -> list[str]:
    """A table of every precision against fp32, with a heading; empty if nothing can be compared.

    `settings` are the options that vary among `records`, as in the main table. Ratios and differences are paired by
    seed, with 95% t intervals (for ratios, of the logarithms).
    """
    distinguishing = [setting for setting in settings if setting.name not in NOT_PAIRED]
    found = _comparisons(records, distinguishing)
    if not found:
        return []
    shown = [quantity for quantity in in_tables(records) if quantity.compared]
    titles = [
        *("batch\nsize", *(setting.name.replace(".", ".\n") for setting in distinguishing), "precision"),
        *(TITLES.get(quantity, printable(quantity.label or quantity.name)) for quantity in shown),
        "seeds",
    ]
    rows = [
        [*comparison.labels, *(_change(comparison.pairs, q) for q in shown), str(len(comparison.pairs))]
        for comparison in found
    ]
    return [
        f"Compared with {REFERENCE}, all else equal, paired by seed (brackets: 95% intervals, from two seeds on):",
        *aligned(titles, rows, left=()),
    ]


def _comparisons(records: Sequence[RunRecord], settings: Sequence[Setting]) -> list[Comparison]:
    completed = [i for i, record in enumerate(records) if record.status is RunStatus.COMPLETED]
    reference = {
        (_rest(records[i]), records[i].seed): records[i]
        for i in completed
        if records[i].config.get("precision") == REFERENCE
    }
    pairs: dict[tuple[str, str], list[Pair]] = {}
    labels: dict[tuple[str, str], tuple[str, ...]] = {}
    for i in completed:
        record, precision = records[i], str(records[i].config.get("precision"))
        match = reference.get((_rest(record), record.seed))
        if precision == REFERENCE or match is None:
            continue
        key = (_rest(record), precision)
        pairs.setdefault(key, []).append((record, match))
        labels[key] = (str(record.batch_size), *(setting.cells[i] for setting in settings), precision)
    return [Comparison(labels[key], tuple(pairs[key])) for key in pairs]


def _rest(record: RunRecord) -> str:
    """The options that two points must share to be compared: all but precision and seed."""
    return key(record.config, ALL_OF_A_RUN, without=NOT_PAIRED)


def _change(pairs: Sequence[Pair], quantity: Quantity) -> str:
    """The change from fp32; if the quantity is clocked, between undisturbed runs on one model of device."""
    if quantity.clocked:
        pairs = [(run, match) for run, match in pairs if run.device_model == match.device_model]
    values = [(_undisturbed(run, quantity), _undisturbed(match, quantity)) for run, match in pairs]
    known = [(a, b) for a, b in values if a is not None and b is not None and math.isfinite(a - b)]
    if quantity.compared == RATIO:
        logs = [math.log(a / b) for a, b in known if a > 0 and b > 0]
        return _estimated(logs, len(pairs), lambda value: f"{math.exp(value):.2f}", "x")
    return _estimated([a - b for a, b in known], len(pairs), lambda value: f"{value:+.4f}", "")


def _undisturbed(record: RunRecord, quantity: Quantity) -> float | None:
    return None if quantity.clocked and record.shared_machine else measured(record, quantity)


def _estimated(values: Sequence[float], pairs: int, written: Callable[[float], str], unit: str) -> str:
    from batchlab.science.statistics.uncertainty import t_interval  # imports SciPy, which no other table needs

    if not values:
        return NOTHING
    found = t_interval(values)
    low, high = (None if bound is None else written(bound) for bound in (found.low, found.high))
    spread = "" if low == high else f" [{low}, {high}]"  # none for counted bytes, nor for one seed
    fewer = f" ({counted(len(values), 'seed')})" if len(values) < pairs else ""
    return f"{written(found.value)}{unit}{spread}{fewer}"
