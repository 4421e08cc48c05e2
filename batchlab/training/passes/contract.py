"""What batchlab asks of a task and its model: each clause with the words for who breaks it, in one place.

`check` says all that is broken; preflight and `verify` refuse what nothing can be measured with. What the clauses look
at are the passes of `contract_passes`. The parent of a sweep reads these words too, so no torch is imported here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.printable import listed, printable

if TYPE_CHECKING:
    from batchlab.training.passes.contract_passes import Parts, TrainingPass, ValidationPass

MOST_NAMED = 3
Words = Mapping[str, object]  # what the sentences of a clause are filled with
T = TypeVar("T")


class Severity(Enum):
    """What follows from a breach."""

    REFUSED = "nothing can be measured, so nothing is started"
    WRONG = "it trains to no use, which is a result too"
    BETTER = "it works, and could be better"


@dataclass(frozen=True)
class Breach:
    """A clause that is broken, in words."""

    about: str
    severity: Severity
    what: str
    advice: str

    @property
    def sentence(self) -> str:
        return f"{self.what}: {self.advice}"


@dataclass(frozen=True)
class Clause(Generic[T]):
    """`broken` says what the words are filled with where what was seen breaks the clause; None where it is kept."""

    about: str
    severity: Severity
    what: str
    advice: str
    broken: Callable[[T], Words | None]

    def worded(self, **words: object) -> Breach:
        """The breach, for who knows already that it is one."""
        return Breach(self.about, self.severity, self.what.format(**words), self.advice.format(**words))


def first_breach(clauses: Iterable[Clause[T]], seen: T) -> Breach | None:
    """Of clauses that are in order: behind one that is broken the others say nothing new."""
    for clause in clauses:
        if (words := clause.broken(seen)) is not None:
            return clause.worded(**words)
    return None


def refuse(clauses: Iterable[Clause[T]], seen: T) -> None:
    """BadRequest where something is broken that nothing can be measured with."""
    breach = first_breach([clause for clause in clauses if clause.severity is Severity.REFUSED], seen)
    if breach is not None:
        raise BadRequest(breach.sentence)


def few(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    return listed(map(printable, names), MOST_NAMED, last=", ")


# The loss: one value per term.


def _where(broken: "Callable[[TrainingPass], bool]") -> "Callable[[TrainingPass], Words | None]":
    def words(seen: "TrainingPass") -> Words:
        return {"kind": type(seen.terms).__name__} | {n: getattr(seen, n) for n in ("examples", "count", "shape")}

    return lambda seen: words(seen) if broken(seen) else None


LOSS_SHAPE: "Clause[TrainingPass]" = Clause(
    "loss",
    Severity.REFUSED,
    "the loss has shape {shape} for {examples} examples that count as {count} terms",
    "it must be one loss per term, shape ({count},), not averaged; where a term is no example (a token), count=... "
    "says how many a batch has",
    _where(lambda seen: seen.shape != (seen.count,)),
)
ONE_PER_TERM: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "loss",
        Severity.REFUSED,
        "the task's loss returns a {kind}",
        "it must return a tensor of one loss per term, shape ({count},)",
        _where(lambda seen: seen.shape is None),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss of {examples} examples is one number, averaged or summed already",
        "return one loss per term, shape ({count},), with reduction='none'; batchlab takes the mean, by count over all "
        "micro-batches",
        _where(lambda seen: seen.terms.numel() == 1 and seen.count > 1),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss has shape {shape}, every output beside every target by broadcasting",
        "bring outputs and targets to one shape before they are compared, such as outputs.squeeze(1)",
        _where(lambda seen: seen.is_a_square and seen.with_one_less().is_a_square),
    ),
    LOSS_SHAPE,
)

# The gradient: it reaches the weights, and is a number.

CUT = "take .detach(), .item(), .data, .numpy(), argmax and torch.no_grad() out of the way from weights to loss"


def _without(seen: "TrainingPass") -> list[str]:
    return [name for name, gradient in seen.gradients.items() if gradient is None]


def _not_finite(seen: "TrainingPass") -> list[str]:
    return [name for name, g in seen.gradients.items() if g is not None and not bool(g.isfinite().all())]


def _idle(seen: "TrainingPass") -> list[str]:
    return [name for name, g in seen.gradients.items() if g is None or not bool(g.count_nonzero())]


NOT_FINITE: "Clause[TrainingPass]" = Clause(
    "gradient",
    Severity.WRONG,
    "{what} is nan or inf at {names}, at the initial weights",
    "look for a division by zero, a log or a square root of 0, and at the scale of the inputs",
    lambda seen: {"what": "the gradient", "names": few(names)} if (names := _not_finite(seen)) else None,
)
GRADIENT: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "gradient",
        Severity.REFUSED,
        "no gradient reaches the weights, as the loss has no graph behind it",
        CUT,
        lambda seen: None if seen.terms.requires_grad else {},
    ),
    Clause(
        "gradient",
        Severity.REFUSED,
        "no gradient reaches any of the model's parameters",
        CUT,
        lambda seen: {} if len(_without(seen)) == len(seen.gradients) else None,
    ),
    NOT_FINITE,
    Clause(
        "gradient",
        Severity.WRONG,
        "the gradient is zero everywhere",
        "look for a constant output, or initial weights of 0",
        lambda seen: {} if len(_idle(seen)) == len(seen.gradients) else None,
    ),
    Clause(
        "gradient",
        Severity.BETTER,
        "no gradient reaches {names}: {without} of {all} parameters are never trained",
        f"use them in forward, leave them out, or requires_grad_(False); else {CUT}",
        lambda seen: (
            {"names": few(names), "without": len(names), "all": len(seen.gradients)}
            if (names := _without(seen))
            else None
        ),
    ),
)

# Metrics: one value per term as well, and a target needs to know which way is better.


def _odd_metric(seen: "ValidationPass") -> Words | None:
    for name, shape in seen.shapes.items():
        if shape not in ((seen.count,), (seen.examples,)):
            kind = f"a {type(seen.metrics[name]).__name__}" if shape is None else f"of shape {shape}"
            return {"name": name, "kind": kind, "examples": seen.examples, "count": seen.count}
    return None


METRIC_SHAPE: "Clause[ValidationPass]" = Clause(
    "metrics",
    Severity.REFUSED,
    "the metric '{name}' is {kind} for {examples} examples that count as {count} terms",
    "return one value per term, shape ({count},), not averaged, such as (outputs.argmax(1) == y).float()",
    _odd_metric,
)
NO_DIRECTION: "Clause[ValidationPass]" = Clause(
    "metrics",
    Severity.BETTER,  # and refused where a target names it
    "is a higher {name} better? No target can name it",
    "say higher_is_better={{'{name}': True}} or False in the Task",
    lambda seen: next(({"name": name} for name in seen.metrics if name not in seen.higher_is_better), None),
)
METRICS = (METRIC_SHAPE, NO_DIRECTION)

# The parts of a batch: what is counted adds up, and a term is by itself.

ADDS_UP: "Clause[Parts]" = Clause(
    "count",
    Severity.WRONG,
    "the task's count: {whole:,} terms in a whole batch, and {parts:,} in its parts together",
    "count(batch) must say how many terms the loss has for that batch, so that it adds up",
    lambda seen: None if seen.whole == seen.together else {"whole": seen.whole, "parts": seen.together},
)
BESIDE = "the loss of an example depends on the examples beside it, at the same outputs"
DIVIDED: "Clause[Parts]" = Clause(
    "loss",
    Severity.WRONG,
    f"{BESIDE}: it is averaged, or divided by their number, already",
    "return the loss of each term by itself, not averaged (reduction='none'); batchlab takes the mean",
    lambda seen: {} if seen.divided else None,
)
BY_ITSELF: "Clause[Parts]" = Clause(
    "loss",
    Severity.WRONG,
    BESIDE,
    "return the loss of each term by itself; one that compares examples with each other has the micro-batch as its "
    "batch, so leave accumulate=1",
    lambda seen: {},
)

# Number formats.


def _odd_weights(seen: "TrainingPass") -> Words | None:
    odd = {name: p.dtype for name, p in seen.losses.model.named_parameters() if _short(p.dtype) != "float32"}
    if not odd:
        return None
    name, dtype = next(iter(odd.items()))
    return {"name": name, "dtype": _short(dtype), "more": f" and {len(odd) - 1} more" if len(odd) > 1 else ""}


def _wide_data(seen: "TrainingPass", *, fails: bool) -> Words | None:
    wide = [position for position, part in enumerate(seen.tensors) if _short(part.dtype) == "float64"]
    failed = seen.failed in ("forward", "loss")
    return {"position": wide[0], "error": seen.words} if wide and failed is fails else None


def _short(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


WIDE = "tensor {position} of the data is float64, and the weights are float32"
NARROWED = "make it float32 where the data is made: x.float(), or array.astype('float32')"
NUMBER_FORMATS: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "dtype",
        Severity.WRONG,
        "the weights are {dtype} ({name}{more}), so that no precision=... would be honoured",
        "leave them float32: take .double(), .half() or dtype=... out; precision=bf16 does the rest",
        _odd_weights,
    ),
    Clause("dtype", Severity.WRONG, f"{WIDE}: {{error}}", NARROWED, lambda seen: _wide_data(seen, fails=True)),
    Clause(
        "dtype",
        Severity.BETTER,
        f"{WIDE}: twice the memory, for digits that no step sees",
        NARROWED,
        lambda seen: _wide_data(seen, fails=False),
    ),
)

# BatchNorm.


def one_example(config: RunConfig, layer: str) -> Breach:
    """Micro-batches of 1 example, and BatchNorm in the model: its variance would be that of one number."""
    instead = "model.norm=group" if "norm" in config.model else "GroupNorm in its place"
    if config.model.get("batch_norm") is True:
        instead = "model.batch_norm=false"
    return Breach(
        "BatchNorm",
        Severity.REFUSED,
        f"batch_size={config.batch_size} makes a micro-batch of 1 example, and BatchNorm (layer '{layer}') cannot "
        "train on one",
        f"use a larger batch, another micro_batch_size, or {instead}",
    )
