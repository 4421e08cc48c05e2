"""The base class of instruments."""

from collections.abc import Iterator, Sequence

from batchlab.errors import BadRequest
from batchlab.records import Measurement, StateDict
from batchlab.records.quantity import Quantity
from batchlab.training.state import RunState, empty
from batchlab.training.updates.update import Outcome


def is_count(value: object, at_least: int = 1) -> bool:
    """Whether it is an integer of at least `at_least`; the config may contain any value."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def check(key: str, value: object, fits: bool, allowed: str) -> None:
    """BadRequest unless `value`, given as `instruments.<key>`, `fits`; `allowed` describes valid values."""
    if not fits:
        raise BadRequest(f"instruments.{key}={value} is invalid: it must be {allowed}")


def check_count(key: str, value: object) -> None:
    """`check` of a count, or null for the instrument's default."""
    check(key, value, value is None or is_count(value), "an integer of at least 1, or null")


class Instrument:
    """Measures a run. Inherit from it, and override what you need.

    The factory is called with the instrument's own keys of the config, and those of these that its signature has:
    `eval_every`, `log_every`, `eval_batch_size`, `batch_size`, `micro_batch_size`, `budget` (all in examples),
    `clip_norm`, `seed`, `task` and `instrument_name` (its key in the config). It raises BadRequest if it cannot
    measure the task, before the first point starts. A run continues without an instrument whose `measure` or
    `conclude` fails, unless it is `essential`.
    """

    every: int | None = None  # examples between measurements; None: only at the start and at the end
    instrument_name: str = ""  # its key in the config, if it was built from one
    essential: bool = False  # whether an error ends the run; otherwise the run continues without the instrument
    quantities: Sequence[Quantity] = ()  # what it measures; undeclared quantities have no unit, chart or direction

    @empty
    def watch(self, outcome: Outcome) -> None:
        """Called after every step. Keep references only: this must not wait for the device."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        """Called at 0 examples, at the first step beyond each multiple of `every`, and at the end, off the clock."""
        del state
        yield from ()

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        """Called once, after the last `measure`: the results for the run as a whole."""
        del state
        yield from ()

    def state_dict(self) -> StateDict:
        """What a resumed run needs; empty if the instrument keeps nothing between measurements."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """The inverse of `state_dict`."""
        del state
