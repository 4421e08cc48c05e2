"""The contract for a task and its model: each clause with its check and its message.

`check` reports all breaches; preflight and `verify` refuse those that make measuring impossible. The clauses examine
the passes of `contract_passes`. The parent of a sweep uses these messages too, so torch is not imported here.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.printable import listed, printable

if TYPE_CHECKING:
    from batchlab.training.passes.contract_passes import TrainingPass, ValidationPass

MOST_NAMED = 3
Values = Mapping[str, object]  # the values that fill in a clause's message
T = TypeVar("T")


class Severity(Enum):
    """The consequence of a breach."""

    REFUSED = "nothing can be measured, so nothing is started"
    WRONG = "it trains, but the results are useless"
    BETTER = "it works, but could be better"


@dataclass(frozen=True)
class Breach:
    """A broken clause, as a message."""

    about: str
    severity: Severity
    what: str
    advice: str

    @property
    def sentence(self) -> str:
        return f"{self.what}: {self.advice}"


@dataclass(frozen=True)
class Clause(Generic[T]):
    """`broken` returns the values for the message if what it is given breaks the clause, else None."""

    about: str
    severity: Severity
    what: str
    advice: str
    broken: Callable[[T], Values | None]

    def worded(self, **values: object) -> Breach:
        """The breach with these values, without a check."""
        return Breach(self.about, self.severity, self.what.format(**values), self.advice.format(**values))


def first_breach(clauses: Iterable[Clause[T]], seen: T) -> Breach | None:
    """The first broken clause, in order: after one that is broken the others add nothing."""
    for clause in clauses:
        if (values := clause.broken(seen)) is not None:
            return clause.worded(**values)
    return None


def refuse(clauses: Iterable[Clause[T]], seen: T) -> None:
    """BadRequest if a clause is broken without which nothing can be measured."""
    breach = first_breach([clause for clause in clauses if clause.severity is Severity.REFUSED], seen)
    if breach is not None:
        raise BadRequest(breach.sentence)


def few(names: Iterable[str]) -> str:
    """The first few names, and the number of the others."""
    return listed(map(printable, names), MOST_NAMED, last=", ")


# The gradient: it reaches the weights, and is finite.
CUT = "remove .detach(), .item(), .data, .numpy(), argmax and torch.no_grad() between the weights and the loss"


def _without(seen: "TrainingPass") -> list[str]:
    return [name for name, gradient in seen.gradients.items() if gradient is None]


def _not_finite(seen: "TrainingPass") -> list[str]:
    return [name for name, g in seen.gradient_values.items() if g is not None and not bool(g.isfinite().all())]


def _idle(seen: "TrainingPass") -> list[str]:
    return [name for name, g in seen.gradient_values.items() if g is None or not bool(g.count_nonzero())]


NOT_FINITE: "Clause[TrainingPass]" = Clause(
    "gradient",
    Severity.WRONG,
    "{what} is nan or inf at {names}, at the initial weights",
    "look for a division by zero or a log or square root of 0, and check the scale of the inputs",
    lambda seen: {"what": "the gradient", "names": few(names)} if (names := _not_finite(seen)) else None,
)
GRADIENT: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "gradient",
        Severity.REFUSED,
        "no gradient reaches the weights, because the loss has no autograd graph",
        CUT,
        lambda seen: None if seen.terms.requires_grad else {},
    ),
    Clause(
        "gradient",
        Severity.REFUSED,
        "no gradient reaches any of the model's parameters",
        CUT,
        lambda seen: {} if seen.count and len(_without(seen)) == len(seen.gradients) else None,
    ),
    NOT_FINITE,
    Clause(
        "gradient",
        Severity.WRONG,
        "the gradient is zero everywhere",
        "look for a constant output, or initial weights of 0",
        lambda seen: {} if seen.count and len(_idle(seen)) == len(seen.gradients) else None,
    ),
    Clause(
        "gradient",
        Severity.BETTER,
        "no gradient reaches {names}: {without} of {all} parameters are never trained",
        f"use them in forward, remove them, or call requires_grad_(False); otherwise {CUT}",
        lambda seen: (
            {"names": few(names), "without": len(names), "all": len(seen.gradients)}
            if (names := _without(seen))
            else None
        ),
    ),
)

# Metrics: also one value per term; a target needs to know which direction is better.


def _odd_metric(seen: "ValidationPass") -> Values | None:
    for name, shape in seen.shapes.items():
        if shape not in ((seen.count,), (seen.examples,)) and not (seen.own_count and _of_examples(shape, seen)):
            kind = f"a {type(seen.metrics[name]).__name__}" if shape is None else f"of shape {shape}"
            return {"name": name, "kind": kind, "examples": seen.examples, "count": seen.count}
    return None


def _of_examples(shape: tuple[int, ...] | None, seen: "ValidationPass") -> bool:
    """Whether a metric has equally many values for each example, some of which may be ignored."""
    return bool(shape) and math.prod(shape or ()) % seen.examples == 0


METRIC_SHAPE: "Clause[ValidationPass]" = Clause(
    "metrics",
    Severity.REFUSED,
    "the metric '{name}' is {kind} for {examples} examples that count as {count} terms",
    "return one value per term, shape ({count},), not averaged, such as 0 or 1 for each prediction; what is no mean of "
    "such values (F1, AUROC) is given as Task(whole_metrics=...)",
    _odd_metric,
)
TWICE: "Clause[ValidationPass]" = Clause(
    "metrics",
    Severity.REFUSED,
    "metrics and whole_metrics both have a metric '{name}'",
    "rename one of them, or remove it",
    lambda seen: next(({"name": name} for name in seen.metrics if name in seen.whole_metrics), None),
)
NO_DIRECTION: "Clause[ValidationPass]" = Clause(
    "metrics",
    Severity.BETTER,  # but refused if a target uses it
    "it is unknown whether a higher {name} is better, so it cannot be used in a target",
    "add higher_is_better={{'{name}': True}} or False to the Task",
    lambda seen: next(({"name": name} for name in seen.names if name not in seen.higher_is_better), None),
)
METRICS = (METRIC_SHAPE, TWICE, NO_DIRECTION)

# Dtypes.


def _weights(seen: "TrainingPass", *dtypes: str) -> Values | None:
    """The trainable weights that have one of these dtypes."""
    trained = [(name, p) for name, p in seen.losses.model.named_parameters() if p.requires_grad]
    odd = {name: p.dtype for name, p in trained if _short(p.dtype) in dtypes}
    if not odd:
        return None
    name, dtype = next(iter(odd.items()))
    return {"name": name, "dtype": _short(dtype), "more": f" and {len(odd) - 1} more" if len(odd) > 1 else ""}


def _wide_data(seen: "TrainingPass", *, fails: bool) -> Values | None:
    wide = [position for position, part in enumerate(seen.tensors) if _short(part.dtype) == "float64"]
    failed = seen.failed in ("forward", "loss")
    if not wide or failed is not fails or _weights(seen, *DOUBLE):
        return None
    return {"position": wide[0], "error": seen.words}


def _only_weights(seen: "TrainingPass") -> bool:
    return not any(_short(part.dtype) in DOUBLE for part in seen.tensors)


def _short(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


DOUBLE = ("float64", "complex128")
WIDE = "tensor {position} of the data is float64, but the weights are float32"
NARROWED = "convert it to float32 when you create the data: x.float(), or array.astype('float32')"
DTYPES: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "dtype",
        Severity.WRONG,
        "the weights are {dtype} ({name}{more}), so precision=... would have no effect",
        "keep them float32: remove .half() or dtype=..., and use precision=bf16 instead",
        lambda seen: _weights(seen, "float16", "bfloat16"),
    ),
    Clause(
        "dtype",
        Severity.BETTER,
        "the weights are {dtype} ({name}{more}), so they are trained in it, with any precision=...",
        "nothing if that is meant, as for a differential equation; otherwise remove .double() or dtype=...",
        lambda seen: None if seen.failed else _weights(seen, *DOUBLE),
    ),
    Clause(
        "dtype",
        Severity.WRONG,
        "the weights are {dtype} ({name}{more}), and the data is not: {error}",
        "remove .double() or dtype=... from the model, or give data of the same dtype",
        lambda seen: (
            {**odd, "error": seen.words}
            if seen.failed and _only_weights(seen) and (odd := _weights(seen, *DOUBLE))
            else None
        ),
    ),
    Clause("dtype", Severity.WRONG, f"{WIDE}: {{error}}", NARROWED, lambda seen: _wide_data(seen, fails=True)),
    Clause(
        "dtype",
        Severity.BETTER,
        f"{WIDE}: it takes twice the memory without any benefit",
        NARROWED,
        lambda seen: _wide_data(seen, fails=False),
    ),
)

# BatchNorm.


def one_example(config: RunConfig, layer: str) -> Breach:
    """Micro-batches of 1 example in a model with BatchNorm: the variance of one value is 0."""
    instead = "model.norm=group" if "norm" in config.model else "GroupNorm instead"
    if config.model.get("batch_norm") is True:
        instead = "model.batch_norm=false"
    return Breach(
        "BatchNorm",
        Severity.REFUSED,
        f"batch_size={config.batch_size} makes a micro-batch of 1 example, and BatchNorm (layer '{layer}') cannot "
        "train on one",
        f"use a larger batch, another micro_batch_size, or {instead}",
    )
