"""Every quantity that is known of some runs: the table's, and what the runs declare in their records."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from batchlab.records.quantities import OF_VALIDATION, TABLE, VALIDATION_LOSS
from batchlab.records.quantity import Quantity

if TYPE_CHECKING:
    from batchlab.records import RunRecord


class Quantities:
    """The table, and what the runs at hand declare besides; theirs takes precedence, for they measured it."""

    def __init__(self, own: Iterable[Quantity] = ()) -> None:
        self._declared = {quantity.name: quantity for quantity in (*TABLE, *own)}
        self._families = [quantity for quantity in self._declared.values() if quantity.is_family]
        self._found: dict[str, Quantity] = {}

    def __iter__(self) -> Iterator[Quantity]:
        """In the order of tables: the table's, then their own."""
        return iter(self._declared.values())

    def __getitem__(self, name: str) -> Quantity:
        """What a measurement's name is declared as, by itself or in a family; without a unit where it is not."""
        if name not in self._found:
            families = (family for family in reversed(self._families) if family.covers(name))
            self._found[name] = self._declared.get(name) or next(families, Quantity(name, "", ""))
        return self._found[name]


def declared_by(records: "Iterable[RunRecord]") -> Quantities:
    """What is known of the quantities of several runs."""
    return Quantities(quantity for record in records for quantity in record.quantities)


def metrics(higher_is_better: Mapping[str, bool]) -> list[Quantity]:
    """The metrics of a task on the validation set, with the better direction that the task gives of them."""
    table = Quantities()
    return [
        replace(table[name], name=name, higher_is_better=higher, keep_best=True)
        for name, higher in ((OF_VALIDATION + metric, higher) for metric, higher in higher_is_better.items())
        if name != VALIDATION_LOSS.name  # lower is better, whatever a task calls so
    ]


def besides_the_table(declared: Iterable[Quantity]) -> tuple[Quantity, ...]:
    """What of `declared` a record has to have, each once, for the table does not say it."""
    table = set(TABLE)
    return tuple(quantity for quantity in dict.fromkeys(declared) if quantity not in table)
