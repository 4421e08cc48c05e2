"""What a run is doing: the phase in which memory ran out decides whether that is a result of the batch size."""

from collections.abc import Callable
from dataclasses import dataclass

BUILDING, DATA = "building", "data"
BATCH, FORWARD, BACKWARD, OPTIMIZER = "batch", "forward", "backward", "optimizer"
VALIDATION, CHECKPOINT = "validation", "checkpoint"

# Running out of memory is a result of the batch size in these phases only. `batch` is gathering a training batch and
# everything else between two steps.
TRAINING = frozenset((BATCH, FORWARD, BACKWARD, OPTIMIZER))


def ignore(phase: str) -> None:
    del phase


@dataclass(slots=True)
class Phase:
    """The phase of one run, set by the code that starts it: one attribute store, which costs a step nothing."""

    name: str = BUILDING
    # Called when training begins, and before and after a validation: what a process killed meanwhile cannot record.
    announce: Callable[[str], None] = ignore


def of_instrument(name: str) -> str:
    """The phase of the instrument with that key in the config."""
    return f"instrument {name}"
