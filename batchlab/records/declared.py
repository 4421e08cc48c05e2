"""All quantities of some runs: those of the table, and those that the runs declare in their records."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from batchlab.records.quantities import OF_VALIDATION, TABLE, VALIDATION_LOSS
from batchlab.records.quantity import Quantity

if TYPE_CHECKING:
    from batchlab.records import RunRecord


class Quantities:
    """The table and what the runs declare in addition; a run's declaration takes precedence, since it measured."""

    def __init__(self, own: Iterable[Quantity] = ()) -> None:
        self._declared = {quantity.name: quantity for quantity in (*TABLE, *own)}
        self._families = [quantity for quantity in self._declared.values() if quantity.is_family]
        self._found: dict[str, Quantity] = {}

    def __iter__(self) -> Iterator[Quantity]:
        """In the order of tables: the table's quantities first, then those of the runs."""
        return iter(self._declared.values())

    def __getitem__(self, name: str) -> Quantity:
        """The quantity of a measurement's name, by itself or from a family; one without a unit if not declared."""
        if name not in self._found:
            families = (family for family in reversed(self._families) if family.covers(name))
            self._found[name] = self._declared.get(name) or next(families, Quantity(name, "", ""))
        return self._found[name]


def declared_by(records: "Iterable[RunRecord]") -> Quantities:
    """The quantities of several runs."""
    return Quantities(quantity for record in records for quantity in record.quantities)


def metrics(higher_is_better: Mapping[str, bool], whole: Iterable[str] = ()) -> list[Quantity]:
    """The metrics of a task on the validation set, with the better direction that the task declares; those of the
    whole set have a column in tables."""
    table, columns = Quantities(), {OF_VALIDATION + metric: f"{OF_VALIDATION[:-1]}\n{metric}" for metric in whole}
    directions = {OF_VALIDATION + metric: higher for metric, higher in higher_is_better.items()}
    return [
        replace(
            table[name],
            name=name,
            higher_is_better=higher,
            keep_best=True,
            column=columns.get(name, table[name].column),
        )
        for name, higher in (dict.fromkeys(columns) | directions).items()
        if name != VALIDATION_LOSS.name  # its direction is fixed: lower is better
    ]


def besides_the_table(declared: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """The quantities in `declared` that are not in the table and so must be in the record, each once."""
    table = set(TABLE)
    return tuple(quantity for quantity in dict.fromkeys(declared) if quantity not in table)
