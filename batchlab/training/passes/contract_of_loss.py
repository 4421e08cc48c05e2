"""The contract for a task's loss and its count: the clauses, each with its check and its message."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from batchlab.training.passes.contract import Clause, Severity, Values

if TYPE_CHECKING:
    from batchlab.training.passes.contract_passes import Ignored, Parts, TrainingPass


def _where(broken: "Callable[[TrainingPass], bool]") -> "Callable[[TrainingPass], Values | None]":
    def values(seen: "TrainingPass") -> Values:
        names = ("examples", "count", "shape", "reduction")
        return {"kind": type(seen.terms).__name__} | {name: getattr(seen, name) for name in names}

    return lambda seen: values(seen) if broken(seen) else None


LOSS_SHAPE: "Clause[TrainingPass]" = Clause(
    "loss",
    Severity.REFUSED,
    "a batch of {examples} examples counts as {count} terms, but its loss has shape {shape}",
    "return one loss per term, shape ({count},), or a scalar; if a term is not an example (a token), let count=... "
    "give the number of terms in a batch",
    _where(lambda seen: not seen.fits),
)
ONE_PER_TERM: "tuple[Clause[TrainingPass], ...]" = (
    Clause(
        "loss",
        Severity.REFUSED,
        "the task's loss returns a {kind}",
        "return a tensor of one loss per term, shape ({count},), or their mean, 0-d",
        _where(lambda seen: seen.shape is None),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the Task has reduction=none, but its loss is a scalar",
        "remove reduction, and it is treated as the mean over the terms, or return one loss per term, shape ({count},)",
        _where(lambda seen: seen.reduction == "none" and seen.shape == ()),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the Task's loss is a scalar (reduction={reduction}), but for {examples} examples it has shape {shape}",
        "return 0-d, such as loss.mean(), or one loss per term without reduction",
        _where(lambda seen: seen.reduction in ("mean", "sum", "batch") and seen.shape != ()),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss of a batch of {examples} examples has shape {shape}, already averaged or summed",
        "return one loss per term, shape ({count},), with reduction='none', or the mean itself, 0-d",
        _where(lambda seen: seen.shape != () and seen.terms.numel() == 1 and seen.count > 1),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss has shape {shape}: broadcasting has combined every output with every target",
        "give outputs and targets the same shape before you compare them, such as outputs.squeeze(1)",
        _where(lambda seen: seen.is_a_square and seen.with_one_less().is_a_square),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss has shape {shape}, one value for each label, but for {examples} examples the task counts {count} "
        "terms",
        "use Task.multilabel(train, val), or average over the labels of each example: .mean(1)",
        _where(lambda seen: not seen.fits and seen.has_many_labels),
    ),
    Clause(
        "loss",
        Severity.REFUSED,
        "the loss has shape {shape}, one value for each pixel, but for {examples} examples the task counts {count} "
        "terms",
        "use Task.segmentation(train, val, ignore_index=255), or let count=... give the number of pixels that are not "
        "ignored",
        _where(lambda seen: not seen.fits and seen.has_masks),
    ),
    LOSS_SHAPE,
)

# Labels that the loss ignores are no terms.
IGNORED_BUT_COUNTED: "Clause[Ignored]" = Clause(
    "count",
    Severity.WRONG,
    "{ignored:,} of {count:,} terms of a batch have the label {label} and a loss of exactly 0: the loss ignores "
    "them, but they are counted, so the mean loss is too small",
    "leave them out of the count: Task(count=lambda batch: ({name} != {label}).sum())",
    lambda seen: vars(seen) if seen.ignored else None,
)

# The parts of a batch: counts add up, and each term is independent of the others.

ADDS_UP: "Clause[Parts]" = Clause(
    "count",
    Severity.WRONG,
    "the task's count gives {whole:,} terms for a whole batch, but {parts:,} for its parts together",
    "count(batch) must return the number of terms in the loss for that batch",
    lambda seen: None if seen.counts_add_up else {"whole": seen.whole, "parts": seen.together},
)
DEPENDS_ON_OTHERS = "for the same outputs, the loss of an example depends on the other examples of its batch"
DIVIDED: "Clause[Parts]" = Clause(
    "loss",
    Severity.WRONG,
    f"{DEPENDS_ON_OTHERS}: it is already averaged, or divided by their number",
    "return the loss of each term separately, not averaged (reduction='none'); batchlab computes the mean. Or return "
    "the mean itself, 0-d; if it is of the batch as a whole, with Task(reduction='batch')",
    lambda seen: {} if seen.divided else None,
)
BY_ITSELF: "Clause[Parts]" = Clause(
    "loss",
    Severity.WRONG,
    DEPENDS_ON_OTHERS,
    "return the loss of each term separately; if it compares the examples of a batch, return its mean, 0-d, with "
    "Task(reduction='batch')",
    lambda seen: {},
)
