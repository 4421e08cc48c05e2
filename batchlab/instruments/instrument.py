"""What an instrument is."""

from collections.abc import Iterator, Sequence

from batchlab.errors import BadRequest
from batchlab.records import Measurement, StateDict
from batchlab.records.quantity import Quantity
from batchlab.training.state import RunState, empty
from batchlab.training.updates.update import Outcome


def is_count(value: object, at_least: int = 1) -> bool:
    """Whether it is an integer of at least so much: a key of an instrument may be anything."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def check(key: str, value: object, fits: bool, allowed: str) -> None:
    """BadRequest unless `value`, given as `instruments.<key>`, fits; `allowed` says what would."""
    if not fits:
        raise BadRequest(f"instruments.{key}={value} cannot be: it is {allowed}")


def check_count(key: str, value: object) -> None:
    """`check` of a number of something that null leaves to the instrument."""
    check(key, value, value is None or is_count(value), "an integer of at least 1, or null")


class Instrument:
    """Something that measures a run. Inherit, and override what is needed.

    The factory is called with the instrument's own keys of the config and what its signature takes of: `eval_every`,
    `log_every`, `eval_batch_size`, `batch_size`, `micro_batch_size`, `budget` (all in examples), `clip_norm`, `seed`,
    `task` and `instrument_name` (its key in the config). It raises BadRequest where it cannot measure the task: that
    is before the first point starts. Where `measure` or `conclude` runs out of memory, the run goes on without it.
    """

    every: int | None = None  # examples between measurements; None: only at the start and at the end
    instrument_name: str = ""  # its key in the config, once it has been made from one
    quantities: Sequence[Quantity] = ()  # what it measures; what is not declared has no unit, chart or direction

    @empty
    def watch(self, outcome: Outcome) -> None:
        """After every step. Keep references only: this must not wait for the device."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        """At 0 examples, at the first step beyond each multiple of `every`, and at the end; the clock stands still."""
        del state
        yield from ()

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        """Once, after the last `measure`: what the run as a whole comes to."""
        del state
        yield from ()

    def state_dict(self) -> StateDict:
        """What resuming needs; empty where the instrument keeps nothing between measurements."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """The inverse of `state_dict`."""
        del state
