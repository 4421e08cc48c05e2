"""The quantities that the tables of a sweep show, and their values in a run."""

from collections.abc import Sequence

from batchlab.records import RunRecord
from batchlab.records.charts import COST
from batchlab.records.declared import declared_by
from batchlab.records.quantities import PEAKS
from batchlab.records.quantity import Quantity


def in_tables(records: Sequence[RunRecord]) -> list[Quantity]:
    """The quantities with a column: costs before results."""
    shown = [quantity for quantity in declared_by(records) if quantity.column]
    return sorted(shown, key=lambda quantity: quantity.chart is None or quantity.chart.category != COST)


def measured(record: RunRecord, quantity: Quantity) -> float | None:
    """The last value; for a memory peak, the kind that the run has."""
    return record.peak_bytes if quantity in PEAKS else record.final.get(quantity.name)
