"""What `verify` found: plain numbers and names, which the parent of the process that found them can read."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

# Up to here a difference is rounding. In float64 networks of a few layers part by 5e-16, deep ones by more, and the
# smallest that BatchNorm made is 1e-2; in fp32 4e-7 and up. Between them there is room.
ROUNDING = {"float64": 1e-10, "fp32": 1e-4}


@dataclass(frozen=True)
class Difference:
    """|g_accumulated - g_whole| / |g_whole| in one number format; norms over all parameters, in float64."""

    number_format: str  # float64, or a precision
    each: tuple[float, ...]  # of each batch
    layers: Mapping[str, float]  # of the parameters of one module, by its path: the worst over the batches

    @property
    def mean(self) -> float:
        return sum(self.each) / len(self.each)

    @property
    def worst(self) -> float:
        return max(self.each)

    @property
    def worst_layers(self) -> list[tuple[str, float]]:
        """The layers, the worst first."""
        return sorted(self.layers.items(), key=lambda item: -item[1])


class Kind(Enum):
    """In what way something makes the two gradients differ."""

    COUNT = "the task's count does not add up"
    RANDOM = "draws random numbers"
    MIXES = "gives an example another output beside other examples"


@dataclass(frozen=True)
class Cause:
    """Something that was seen to make them differ, and the difference that is left without it.

    `what` is a class of modules, or `forward` or `loss` of the task. `remains` is the worst over the batches; None
    where it could not be taken out.
    """

    kind: Kind
    what: str
    paths: tuple[str, ...] = ()  # of the modules of that class; the model itself is ''
    remains: float | None = None
    frozen: bool = False  # it was taken out by eval mode; otherwise by passing it the micro-batches one by one
    is_batch_norm: bool = False
    redrawn: float | None = None  # between two passes of the whole batch that draw other random numbers
    divides: bool = False  # a loss whose terms are divided by the number of examples beside them
    counts: tuple[int, ...] = ()  # of the whole batch, then of each micro-batch


@dataclass(frozen=True)
class Findings:
    """The answer to: is an update over these micro-batches an update on the whole batch?"""

    micro_batch_sizes: tuple[int, ...]
    differences: tuple[Difference, ...]  # fp32 first; float64 where it could be computed
    float64_failed: str  # why not, or ''
    causes: tuple[Cause, ...]  # in the order in which they were found, each taken out before the next
    saved_bytes: tuple[int, int]  # for backward: of the whole batch, of the first micro-batch

    @property
    def deciding(self) -> Difference:
        """The difference that is judged: that in float64, where there is one."""
        return next((d for d in self.differences if d.number_format == "float64"), self.differences[0])

    @property
    def bound(self) -> float:
        """Up to which it is rounding."""
        return ROUNDING[self.deciding.number_format]

    @property
    def is_rounding(self) -> bool:
        return self.deciding.worst <= self.bound

    @property
    def explained(self) -> bool:
        """Whether nothing is left of the difference without its causes."""
        left = self.causes[-1].remains if self.causes else self.deciding.worst
        return left is not None and left <= self.bound

    @property
    def same(self) -> bool:
        """Whether they are the same gradient, apart from the random numbers that a whole batch draws anew as well."""
        return self.explained and all(cause.kind is Kind.RANDOM for cause in self.causes)
