"""Finds why the two gradients differ, by experiment: removes one suspect at a time and measures again."""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from batchlab.training.passes.contract_passes import Parts
from batchlab.training.passes.observing import Call, by_micro_batch, first_difference
from batchlab.worker.verify.findings import ROUNDING, Cause, Kind
from batchlab.worker.verify.trial import Trial


def find_causes(trial: Trial, difference: float) -> list[Cause]:
    """The causes of `difference`, in the order in which they were found; each remains removed from `trial`.

    It ends when only rounding is left, a cause cannot be removed, or no further cause is found.
    """
    bound = ROUNDING[trial.dtype]
    found: list[Cause] = []
    remains: float | None = difference
    while remains is not None and remains > bound:
        cause = _next_cause(trial, bound)
        if cause is None or any((cause.kind, cause.what) == (other.kind, other.what) for other in found):
            break
        found.append(cause)
        remains = cause.remains
    return found


def _next_cause(trial: Trial, tolerance: float) -> Cause | None:
    # Random numbers before the rest: they make any two passes differ.
    return _count(trial) or _random(trial, tolerance) or _mixing(trial, tolerance)


def _count(trial: Trial) -> Cause | None:
    for batch in trial.batches:
        counts = trial.counts(batch)
        if not math.isclose(counts[0], sum(counts[1:]), rel_tol=1e-5):  # weights may be float32
            trial.count_examples()
            return Cause(Kind.COUNT, "count", remains=_left(trial), counts=counts)
    return None


def _random(trial: Trial, tolerance: float) -> Cause | None:
    def found() -> Call | None:
        """The first call with other outputs in a pass that differs only in its random numbers."""
        drawn = first_difference(trial.calls_of_whole(), [trial.calls_of_whole(trial.seed + 1)], tolerance)
        return drawn[0] if drawn is not None else None

    call = found()
    if call is None:
        return None
    cause, group = _named(Kind.RANDOM, trial.model, call)
    cause = replace(cause, redrawn=trial.redrawn().worst)
    trial.frozen += group
    again = found()
    if call.module is None or (again is not None and again.module in group):
        return cause  # eval mode does not stop it
    return replace(cause, frozen=True, remains=_left(trial))


def _mixing(trial: Trial, tolerance: float) -> Cause | None:
    def found() -> tuple[Call, list[Call]] | None:
        """The first call with other outputs for the same examples in micro-batches than in the whole batch."""
        return first_difference(trial.calls_of_whole(), trial.calls_of_micro_batches(), tolerance)

    first = found()
    of_batch = trial.task.reduction == "batch" and (first is None or first[0].path in ("loss", "training_loss"))
    if of_batch:
        return Cause(Kind.WHOLE, "loss" if trial.task.training_loss is None else "training_loss")
    if first is None:
        return None
    call, parts = first
    cause, group = _named(Kind.MIXES, trial.model, call)
    if call.path in ("loss", "training_loss") and trial.is_scalar:
        return cause  # of the batch as a whole: it cannot be split
    if call.module is None:
        function = by_micro_batch(getattr(trial.task, call.path), call, parts)
        trial.split_task = {**trial.split_task, call.path: function}
        divides = call.path == "loss" and _of_batch(call, parts, tolerance).divided
        return replace(cause, remains=_left(trial), divides=divides)
    trial.frozen += group
    again = found()
    if again is None or again[0].module not in group:
        return replace(cause, frozen=True, remains=_left(trial))
    trial.frozen = [module for module in trial.frozen if module not in group]
    _split(trial, group)
    return replace(cause, remains=_left(trial))


def _split(trial: Trial, group: Sequence[nn.Module]) -> None:
    """Passes micro-batches to the modules of `group` sequentially, in the pass of the whole batch too."""
    passes = trial.calls_of_micro_batches()
    for call in trial.calls_of_whole():
        module = call.module
        if module is None or module not in group or module in trial.split_modules:
            continue
        parts = [part for calls in passes for part in [_first_of(module, calls)] if part is not None]
        if len(parts) == len(passes):
            trial.split_modules[module] = by_micro_batch(module.forward, call, parts)


def _first_of(module: nn.Module, calls: Sequence[Call]) -> Call | None:
    return next((call for call in calls if call.module is module), None)


def _left(trial: Trial) -> float | None:
    """The difference without the causes removed so far; None if the passes fail without them."""
    try:
        return trial.difference().worst
    except (RuntimeError, ValueError, StopIteration):  # shapes that do not fit any more
        return None


def _named(kind: Kind, model: nn.Module, call: Call) -> tuple[Cause, list[nn.Module]]:
    """The cause, and the modules of its class: 50 layers of BatchNorm are one cause."""
    if call.module is None:
        return Cause(kind, call.path), []
    group = {path: module for path, module in model.named_modules() if type(module) is type(call.module)}
    is_batch_norm = isinstance(call.module, nn.modules.batchnorm._BatchNorm)
    cause = Cause(kind, type(call.module).__name__, paths=tuple(group), is_batch_norm=is_batch_norm)
    return cause, list(group.values())


def _of_batch(loss: Call, parts: Sequence[Call], tolerance: float) -> Parts:
    return Parts(loss.outputs[0], [part.outputs[0] for part in parts], tolerance)
