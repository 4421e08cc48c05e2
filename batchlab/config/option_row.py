"""What the table says of one option: its row, its role in a study, and what another value of it changes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from typing import Any

from batchlab.config.goals import BUDGET_UNITS

_ALWAYS_THERE = object()  # equal to no value


class Moves(Flag):
    """What another value of an option changes."""

    NOTHING = 0
    WEIGHTS = auto()  # the bits of the weights after a number of examples
    MEASUREMENTS = auto()  # what is measured of a run, when, and for how long
    VALUES = auto()  # the numbers that are measured of the same weights
    SPEED = auto()
    MEMORY = auto()
    PARTS = auto()  # whether the parts of a run can be built, or fit each other


NOTHING, WEIGHTS, MEASUREMENTS = Moves.NOTHING, Moves.WEIGHTS, Moves.MEASUREMENTS
VALUES, SPEED, MEMORY, PARTS = Moves.VALUES, Moves.SPEED, Moves.MEMORY, Moves.PARTS
IDENTITY = WEIGHTS | MEASUREMENTS | VALUES  # another value makes another run
EXECUTION = WEIGHTS | SPEED | MEMORY
RESULTS = EXECUTION | VALUES  # another value may give other numbers
ALL_OF_A_RUN = IDENTITY | SPEED | MEMORY  # what runs are grouped by
ANYTHING = ~NOTHING


class Role(Enum):
    """What an option is to a study."""

    AXIS = "axis"  # what is asked about
    TUNED = "tuned"  # a fair comparison gives each point of the axis its own
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
    takes: str | None = None  # in words, where type and bounds do not tell what to write
    such_as: str = ""  # values to write, with commas between: for lists, and for completion
    items: str = ""  # what the items of a list are
    flag: str = ""  # the option of the command line that stands for it
    is_group: bool = False  # a mapping with `_target_`, chosen among the files of a folder
    first: bool = False  # among the first columns of tables
    column: str = ""  # title of its column in the list of a study's points, its lines parted by newlines; "": none
    # In the name of a group of runs only where nothing else tells it from the others; of these, a higher one later.
    said_last: int = 0
    decides: str = ""  # what it decides together with other options
    of_the_machine: bool = False  # where it runs and on how much of the machine: of no use to a study elsewhere
    made_with: bool = False  # a study is of one kind of code, data and device, which this names
    only_whether: bool = False  # speed, memory and parts depend on whether it is set, not on its size
    seen_as: Callable[[Any], Any] = lambda value: value  # what in it tells runs apart
    # Of an option that was added when there were runs: the value that they had. It is left out where runs are compared,
    # so that they keep their ids. And of a group: itself without the keys that were added, where they are null.
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
        """The keys at the root of a config that give it."""
        return (*BUDGET_UNITS, "default_epochs") if self.name == "budget" else (self.name,)


def option(meaning: str, moves: Moves = NOTHING, **more: Any) -> Any:
    """A field of a configuration, which is a row of the table; `more` as `Option` has it."""
    return field(metadata={"option": Option(meaning=meaning, moves=moves, **more)})
