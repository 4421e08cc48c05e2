"""One row of the table of options: its role in a study, what another value changes, and what makes two values equal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any

from batchlab.config.goals import BUDGET_UNITS

_ALWAYS_THERE = object()  # equal to no value


class Moves(Flag):
    """What another value of an option changes."""

    NOTHING = 0
    WEIGHTS = auto()  # the bits of the weights after a given number of examples
    MEASUREMENTS = auto()  # what is measured in a run, when, and for how long
    VALUES = auto()  # the numbers that are measured of the same weights
    SPEED = auto()
    MEMORY = auto()
    PARTS = auto()  # whether the parts of a run can be built and fit each other


NOTHING, WEIGHTS, MEASUREMENTS = Moves.NOTHING, Moves.WEIGHTS, Moves.MEASUREMENTS
VALUES, SPEED, MEMORY, PARTS = Moves.VALUES, Moves.SPEED, Moves.MEMORY, Moves.PARTS
IDENTITY = WEIGHTS | MEASUREMENTS | VALUES  # another value makes another run
EXECUTION = WEIGHTS | SPEED | MEMORY
RESULTS = EXECUTION | VALUES  # another value may give other numbers
ALL_OF_A_RUN = IDENTITY | SPEED | MEMORY  # what runs are grouped by
ANYTHING = ~NOTHING


class Role(Enum):
    """The role of an option in a study."""

    AXIS = "axis"  # what the study compares
    TUNED = "tuned"  # in a fair comparison each point of the axis has its own value
    REPEATED = "repeated"  # to see the spread
    FIXED = "fixed"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row of the table."""

    meaning: str
    moves: Moves = NOTHING
    role: Role = Role.FIXED
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    takes: str | None = None  # as text, where type and bounds do not say what to type
    such_as: str = ""  # values to write, with commas between; of a group, a `_target_` of the user's own
    items: str = ""  # what the items of a list are
    flag: str = ""  # the flag of the command line that sets it
    is_group: bool = False  # a mapping with `_target_`, chosen from the files of a folder
    may_be_own: bool = False  # one of `choices`, or a mapping with `_target_` that names the user's code
    first: bool = False  # among the first columns of tables
    column: str = ""  # title of its column in the list of a study's points, with newlines between its lines; "": none
    # In the name of a group of runs only where nothing else distinguishes the group; a higher number comes later.
    naming_level: int = 0
    decides: str = ""  # what it decides together with other options
    of_the_machine: bool = False  # where it runs and on how much of the machine: not useful on another machine
    made_with: bool = False  # names the code, data or device, of which a study has one kind
    only_whether: bool = False  # speed, memory and parts depend on whether it is set, not on its value
    seen_as: Callable[[Any], Any] = lambda value: value  # the part of it that distinguishes runs
    # For an option that was added after the first runs: the value that held before. It is left out of comparisons, so
    # that runs keep their ids. For a group: itself without the keys that were added, where they are null.
    before: Any = _ALWAYS_THERE
    as_before: Callable[[Any], Any] = lambda value: value
    name: str = ""
    type: str = ""  # as it is written: `int`, `float | None`

    @property
    def is_identity(self) -> bool:
        """Whether another value makes another run."""
        return bool(self.moves & IDENTITY)

    @property
    def was_added(self) -> bool:
        """Whether there are runs from before this option."""
        return self.before is not _ALWAYS_THERE

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys at the root of a config that set it."""
        return (*BUDGET_UNITS, "default_epochs") if self.name == "budget" else (self.name,)


def option(meaning: str, moves: Moves = NOTHING, **more: Any) -> Any:
    """A field of a configuration, which is a row of the table; `more` as `Option` has it."""
    return field(metadata={"option": Option(meaning=meaning, moves=moves, **more)})


def device_kind(device: Any) -> Any:
    """`cuda` for `cuda:3`: the index of the GPU is not a setting of a run. The GPU itself is in its environment."""
    return device.partition(":")[0] if isinstance(device, str) else device


def which_data(group: Any) -> Any:
    """The keys of the data group that determine the data: all but `download`, for data sets that ship with batchlab.

    `folder` is one of them: another folder may hold fewer examples. In a user's own group every key counts.
    """
    if not isinstance(group, Mapping) or not str(group.get("_target_")).startswith("batchlab.data."):
        return group
    return {key: value for key, value in group.items() if key != "download"}


def before_added_keys(group: Any) -> Any:
    """The model group without the keys that were added after the first runs, where they are null."""
    if not isinstance(group, Mapping):
        return group
    own = str(group.get("_target_")).startswith("batchlab.models.")  # a user's model may mean something else by `norm`
    later = ("ghost_batch", "norm") if own else ("ghost_batch",)
    return {key: value for key, value in group.items() if key not in later or value is not None}


def micro_batches(batch_size: int, accumulate: int | None, micro_batch_size: int | None) -> tuple[int, int]:
    """The size of a step's first micro-batch, which no later one exceeds, and their number."""
    largest = micro_batch_size or -(-batch_size // (accumulate or 1))
    return largest, -(-batch_size // largest)
