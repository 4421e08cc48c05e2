"""The numbers by which two studies are compared."""

from collections.abc import Iterator

from batchlab.printable import printable
from batchlab.records.declared import Quantities
from batchlab.records.quantities import TRAINING_SPEED, VALIDATION_LOSS
from batchlab.records.quantity import RATIO

# Costs that no instrument measures, each after the quantity it belongs to.
TAKEN = {
    VALIDATION_LOSS.name: ("target.examples", "examples to target", True, False),
    TRAINING_SPEED.name: ("train_seconds", "training seconds", True, True),
}


def compared(quantities: Quantities) -> Iterator[tuple[str, str, bool, bool]]:
    """The column of each number, its label, whether it is compared as a ratio, and whether it depends on time."""
    for quantity in quantities:
        if quantity.compared:
            label, how = printable(quantity.label or quantity.name), (quantity.compared == RATIO, quantity.clocked)
            if quantity.keep_best:
                yield quantity.best, f"best {label}", *how
            yield quantity.final, f"final {label}" if quantity.keep_best else label, *how
        if quantity.name in TAKEN:
            yield TAKEN[quantity.name]
