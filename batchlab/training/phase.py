"""What a run is doing: where memory ran out is part of how it ended, and decides what that says of the batch size."""

from dataclasses import dataclass

BUILDING, DATA = "building", "data"
BATCH, FORWARD, BACKWARD, OPTIMIZER = "batch", "forward", "backward", "optimizer"
VALIDATION, CHECKPOINT = "validation", "checkpoint"

# Memory that runs out here is a result of the batch size, and nowhere else. `batch` is the gathering of a training
# batch and all else between two steps.
TRAINING = frozenset((BATCH, FORWARD, BACKWARD, OPTIMIZER))


@dataclass(slots=True)
class Phase:
    """Of one run, written by whoever begins something else: one store of an attribute, which costs a step nothing."""

    name: str = BUILDING


def of_instrument(name: str) -> str:
    """The phase in which the instrument of that key in the config works."""
    return f"instrument {name}"
