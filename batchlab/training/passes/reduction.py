"""Finds out what a task's loss is: terms, their mean, or one value of the batch as a whole; leaves no trace."""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.task import Batch, Task, changed
from batchlab.training.data.batches import augmented, gather, length, split
from batchlab.training.data.collated import content
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import PAIR, Losses, in_training_mode, needs_training_mode
from batchlab.training.passes.halving import halved
from batchlab.training.passes.inputs import copied
from batchlab.training.passes.no_trace import passing

EXAMPLES = 32  # of the batch that is compared with its parts
TOLERANCE = 5e-5  # relative, in fp32: kernels round differently for batches of other sizes
FEW = 2  # examples, to see the shape
DRAWS = 32  # of the random numbers of a loss that draws some
ERRORS = 5.0  # standard errors by which the mean over these draws may differ from 0; by chance 1 in 50,000 does


def with_reduction(task: Task, model: nn.Module, train: Any, precision: Precision) -> Task:
    """The task with its `reduction` decided: `none` (left out for a vector), `mean`, `sum`, `batch`, or `weights` for a
    loss that returns (losses, weights).

    A mean is verified: over unequal parts of the first training examples it must be weighted by count; otherwise it is
    of the batch as a whole. It depends on the data, the initial weights and nothing else. A task whose loss fails here
    is returned as it is: it fails again where the error is reported. A `training_loss` that has no value in eval mode,
    as that of a detector, is called in training mode from then on. What differentiates by itself (energies and forces,
    differential equations) is called with gradients enabled from then on, also in validation.
    """
    task = _with_loss_in_both_modes(_with_gradients(task, model, train, precision), model, train, precision)
    if task.reduction not in (None, "mean"):
        return task
    with precision.full() as fp32:
        losses = Losses(model, task, fp32)
        try:
            found = task.reduction or _by_shape(losses, train)
            if found == "mean" and not _is_mean(losses, train):
                found = "batch"
        except (Exception, SystemExit):
            return task
    if found == task.reduction or found == "none":
        return task
    return changed(task, reduction=found)


def about(config: RunConfig, task: Task) -> Iterator[str]:
    """What the record says about the loss of a run, if it is not as usual."""
    if needs_training_mode(task):
        yield (
            "training_loss has no value in eval mode, so the model is in training mode when its loss is measured: "
            "dropout and BatchNorm act as in training"
        )
    if task.reduction != "batch":
        return
    if len(config.micro_batch_sizes) > 1:
        yield (
            f"the loss is of the batch as a whole (reduction=batch), and {len(config.micro_batch_sizes)} micro-batches "
            "change the objective: it is the mean of the micro-batches' losses (accept_changed_objective=true)"
        )
    else:
        yield (
            "the loss is of the batch as a whole (reduction=batch): the batch size is part of the objective, and "
            f"val/loss is the mean over batches of eval_batch_size={config.eval_batch_size}"
        )


def changed_objective(config: RunConfig, task: Task) -> str | None:
    """Why a run must not accumulate; None if it may."""
    if task.reduction != "batch" or len(config.micro_batch_sizes) == 1 or config.accept_changed_objective:
        return None
    return (
        f"batch_size={config.batch_size} in {len(config.micro_batch_sizes)} micro-batches was requested, but the "
        "task's loss is of the batch as a whole (reduction=batch), so accumulating would change the objective: use "
        "accumulate=1, or accept_changed_objective=true for the mean over micro-batches; if it is a mean over "
        "tokens, or over labels that are not ignored, give the Task their number, count=..."
    )


def refuse_changed_objective(config: RunConfig, task: Task) -> None:
    """BadRequest if the run accumulates a loss that is of the batch as a whole."""
    if (why := changed_objective(config, task)) is not None:
        raise BadRequest(why)


def _with_loss_in_both_modes(task: Task, model: nn.Module, train: Any, precision: Precision) -> Task:
    with precision.full() as fp32:
        losses = Losses(model, task, fp32)
        if (
            not losses.is_joined
            or _has_loss(losses, train, training=False)
            or not _has_loss(losses, train, training=True)
        ):
            return task
    in_eval_mode = frozenset(name for name, module in model.named_modules() if not module.training)
    return in_training_mode(task, in_eval_mode)


def _has_loss(losses: Losses, train: Any, *, training: bool) -> bool:
    try:
        (few,) = _batches(losses.task, train, [min(FEW, length(train))])
        with passing(losses.trained, losses.precision, training=training, seed=0):
            returned = losses.returned(few)
    except Exception:  # reported where the loss is needed
        return False
    return isinstance(returned, Tensor | tuple)


class WithGradients:
    """A task's `forward` or `training_loss`, called with gradients enabled; without them it returns no graph."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        if torch.is_grad_enabled():
            return self.function(model, batch)
        with torch.enable_grad():
            returned = self.function(model, batch)
        return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, returned)


def _with_gradients(task: Task, model: nn.Module, train: Any, precision: Precision) -> Task:
    with precision.full() as fp32:
        losses = Losses(model, task, fp32)
        part = "training_loss" if losses.is_joined else "forward"
        try:
            (few,) = _batches(task, train, [min(FEW, length(train))])
            with passing(losses.trained, fp32, training=False, seed=0), torch.no_grad():
                getattr(task, part)(model, content(copied(few)))
        except (Exception, SystemExit) as error:  # any other is reported where the loss is needed
            if "does not require grad" in str(error):
                return changed(task, **{part: WithGradients(getattr(task, part))})
    return task


def _by_shape(losses: Losses, train: Any) -> str:
    (few,) = _batches(losses.task, train, [min(FEW, length(train))])
    with passing(losses.trained, losses.precision, training=True, seed=0):
        returned = losses.returned(few)
    if isinstance(returned, tuple) and len(returned) == 2 and all(isinstance(part, Tensor) for part in returned):
        return PAIR
    return "mean" if isinstance(returned, Tensor) and returned.dim() == 0 else "none"


def _is_mean(losses: Losses, train: Any) -> bool:
    """Whether the loss of a batch is the mean, weighted by count, of the losses of its parts."""

    def compared(size: int) -> bool:
        # In training mode first: some models have a loss in this mode alone. Dropout and BatchNorm make the parts
        # differ there, so then eval mode decides.
        found = None
        for training in (True, False):
            found = _difference(losses, train, size, training=training)
            if found is not None and not abs(found[0]) > TOLERANCE * found[1]:  # nan: the gradient's check reports it
                return True
        return _agrees_on_average(losses, train, size, training=found is None)

    agrees, _ = halved(compared, min(EXAMPLES, length(train)), of=length(train), device=losses.precision.device)
    return agrees


def _agrees_on_average(losses: Losses, train: Any, size: int, *, training: bool) -> bool:
    """The same for a loss that draws random numbers (a diffusion model), which are others in the parts than in the
    whole batch: whether the difference is 0 on average over several draws. False if it draws none."""
    found: list[float] = []
    for seed in range(DRAWS):
        difference = _difference(losses, train, size, training=training, seed=seed)
        if difference is None or (seed == 1 and difference[0] == found[0]):
            return False
        found.append(difference[0])
    return not abs(statistics.fmean(found)) > ERRORS * statistics.stdev(found) / math.sqrt(DRAWS)


def _difference(losses: Losses, train: Any, size: int, *, training: bool, seed: int = 0) -> tuple[float, float] | None:
    """The loss of a batch minus the mean of its parts, weighted by count, and the largest of these losses; None if a
    pass fails."""
    try:
        whole, _ = _values(losses, _batches(losses.task, train, [size]), training, seed)
        parts, counts = _values(losses, _batches(losses.task, train, _unequal(size)), training, seed)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None  # BatchNorm refuses one example, and some models have no loss in eval mode
    if not whole:
        return 0.0, 0.0  # no terms: nothing can be compared
    mean = sum(part * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    return whole[0] - mean, max(map(abs, (*whole, *parts)))


def _batches(task: Task, train: Any, sizes: Sequence[int]) -> Sequence[Batch]:
    """The first training examples in consecutive batches of these sizes, as in training."""
    ends = [*itertools.accumulate(sizes)]
    if task.augment is not None and task.collate is None:  # it may mix the examples of a batch: the parts are of one
        return split(augmented(gather(train, torch.arange(ends[-1])), task.augment, 0, 0), sizes)
    parts = [gather(train, torch.arange(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    return [augmented(part, task.augment, 0, end - size) for part, end, size in zip(parts, ends, sizes, strict=True)]


def _values(losses: Losses, batches: Sequence[Batch], training: bool, seed: int) -> tuple[list[float], list[float]]:
    """The loss and the count of each batch, without those that have no terms."""
    values, counts = [], []
    for batch in batches:
        if count := losses.count(batch):
            with passing(losses.trained, losses.precision, training=training, seed=seed):
                values.append(float(losses.returned(batch).detach()))
            counts.append(float(count))
    return values, counts


def _unequal(size: int) -> list[int]:
    """Three unequal parts, or two, or one: 32 is 5 + 10 + 17."""
    first, second = size // 6, size // 3
    return [part for part in (first, second, size - first - second) if part]
