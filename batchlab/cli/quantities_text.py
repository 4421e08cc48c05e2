"""The table of all measurements, for the documentation and the help of `batchlab export`."""

import textwrap
from collections.abc import Iterator

from batchlab.records.quantities import TABLE, UNDECLARED
from batchlab.records.quantity import Quantity

TITLES = ("measurement", "unit", "what it is", "better", "clocked", "chart")
BETTER = {True: "higher", False: "lower", None: ""}


def markdown() -> str:
    """A row for each quantity, as in docs/measuring.md."""
    rows = [TITLES, ("---",) * len(TITLES), *map(_row, TABLE)]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in rows) + "\n"


def by_unit(width: int = 118) -> str:
    """A paragraph for each unit with the measurements that have it."""
    return "\n".join(_paragraphs(width))


def _row(quantity: Quantity) -> tuple[str, ...]:
    return (
        f"`{quantity.name}`",
        quantity.unit,
        quantity.meaning,
        BETTER[quantity.higher_is_better],
        "yes" if quantity.clocked else "",
        quantity.chart.title if quantity.chart is not None else "",
    )


def _paragraphs(width: int) -> Iterator[str]:
    declared = [quantity for quantity in TABLE if quantity not in UNDECLARED]
    for unit in dict.fromkeys(quantity.unit for quantity in declared):
        names = ", ".join(quantity.name for quantity in declared if quantity.unit == unit)
        yield textwrap.fill(
            f"{unit}: {names}", width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
