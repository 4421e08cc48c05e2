"""The findings of `verify`, as plain numbers and names that are sent to the parent process."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

# Largest difference that counts as rounding. In float64 networks of a few layers differ by 5e-16, deep ones by more,
# and the smallest difference from BatchNorm was 1e-2; in fp32 rounding gives 4e-7 and up. The bounds lie between them.
ROUNDING = {"float64": 1e-10, "fp32": 1e-4}


@dataclass(frozen=True)
class Difference:
    """|g_accumulated - g_whole| / |g_whole| in one precision; norms over all parameters, in float64."""

    dtype: str  # float64, or a precision
    each: tuple[float, ...]  # of each batch
    layers: Mapping[str, float]  # by module path, for the parameters of that module: the worst over the batches

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
    """How a cause makes the two gradients differ."""

    COUNT = "the task's count does not add up"
    RANDOM = "draws random numbers"
    MIXES = "gives an example another output in another batch"
    WHOLE = "the loss is of the batch as a whole (reduction=batch)"


@dataclass(frozen=True)
class Cause:
    """A cause of the difference, and the difference that remains without it.

    `what` is a class of modules, or `forward` or `loss` of the task. `remains` is the worst over the batches; None
    if the cause could not be removed.
    """

    kind: Kind
    what: str
    paths: tuple[str, ...] = ()  # of the modules of that class; the model itself is ''
    remains: float | None = None
    frozen: bool = False  # removed by eval mode; otherwise by passing it the micro-batches one by one
    is_batch_norm: bool = False
    redrawn: float | None = None  # difference between two passes of the whole batch with other random numbers
    divides: bool = False  # a loss whose terms are divided by the number of examples in the batch
    counts: tuple[float, ...] = ()  # of the whole batch, then of each micro-batch


@dataclass(frozen=True)
class Findings:
    """Whether an update over these micro-batches equals an update on the whole batch."""

    micro_batch_sizes: tuple[int, ...]
    differences: tuple[Difference, ...]  # fp32 first; float64 where it could be computed
    float64_failed: str  # why not, or ''
    causes: tuple[Cause, ...]  # in the order in which they were found, each removed before the next
    saved_bytes: tuple[int, int]  # for backward: of the whole batch, of the first micro-batch

    @property
    def deciding(self) -> Difference:
        """The difference that is judged: the one in float64, if there is one."""
        return next((d for d in self.differences if d.dtype == "float64"), self.differences[0])

    @property
    def bound(self) -> float:
        """The largest difference that counts as rounding."""
        return ROUNDING[self.deciding.dtype]

    @property
    def is_rounding(self) -> bool:
        return self.deciding.worst <= self.bound

    @property
    def explained(self) -> bool:
        """Whether only rounding remains of the difference without its causes."""
        left = self.causes[-1].remains if self.causes else self.deciding.worst
        return left is not None and left <= self.bound

    @property
    def same(self) -> bool:
        """Whether both are the same gradient, except for random numbers, which also differ between whole batches."""
        return self.explained and all(cause.kind is Kind.RANDOM for cause in self.causes)
