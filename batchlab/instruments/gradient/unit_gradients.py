"""Squared gradient norms of a batch and of its units: single examples, or micro-batches."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from batchlab.task import Batch
from batchlab.training.gradients import as_real
from batchlab.training.losses import Count, Losses

Scale = Sequence[Tensor] | None  # elementwise factors of each parameter's gradient; None: unscaled


class UnitGradients:
    """Accumulates sums over the gradients of a batch's units, from which the squared norms at both sizes follow.

    Only one gradient and two sums are in memory. A unit's gradient is that of its *summed* loss, and the batch's is
    their sum over the count of all terms, as in training. If units have different numbers of terms, a unit deviates
    from the batch by s_j - C_j g, over the mean count (s_j summed gradient, C_j terms, g the batch's gradient): with
    means over terms, short units would weigh as much as long ones. Computed for each of `scales`.
    """

    def __init__(self, scales: Sequence[Scale]) -> None:
        self._scales = scales
        self._units = 0
        self._count: Count = 0
        self._count_squared: Count = 0
        self._sums: list[Tensor] = []
        self._sums_by_count: list[Tensor] = []
        self._squares = torch.zeros((), dtype=torch.float64)  # (scales, parameters) from the first unit on

    def add(self, gradients: Sequence[Tensor], count: Count) -> None:
        """Adds units of `count` terms each: for each parameter their gradients, shape (units, *the parameter's)."""
        units = len(gradients[0])
        self._units += units
        self._count += units * count
        self._count_squared += units * count * count
        sums = [g.sum(0, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
        by_count = [count * s for s in sums]
        self._sums = _added(self._sums, sums)
        self._sums_by_count = _added(self._sums_by_count, by_count)
        squares = torch.stack([torch.stack([_square(g) for g in _seen(gradients, s)]) for s in self._scales])
        self._squares = self._squares + squares

    def squared_norms(self) -> Tensor:
        """Mean of the units' squared norms, and the batch's: (2, scales, parameters), float64, on the device."""
        mean_count = self._count / self._units
        both = []
        for scale, squares in zip(self._scales, self._squares, strict=True):
            gradient = [s.double() / self._count for s in _seen(self._sums, scale)]
            by_count = _seen(self._sums_by_count, scale)
            big = torch.stack([_square(g) for g in gradient])
            inner = torch.stack([(g * s).sum() for g, s in zip(gradient, by_count, strict=True)])
            deviations = squares - 2 * inner + self._count_squared * big
            both.append(torch.stack([big + deviations / (self._units * mean_count**2), big]))
        return torch.stack(both, dim=1)


def micro_batch_norms(
    losses: Losses, micro_batches: Iterable[Batch], parameters: Sequence[Tensor], scales: Sequence[Scale]
) -> Tensor:
    """`UnitGradients.squared_norms` with the micro-batches as units, in the model's current mode."""
    units = UnitGradients(scales)
    for batch in micro_batches:
        gradients, count = summed_gradient(losses, batch, parameters)
        units.add([g.unsqueeze(0) for g in gradients], count)
    return units.squared_norms()


def summed_gradient(losses: Losses, batch: Batch, parameters: Sequence[Tensor]) -> tuple[Sequence[Tensor], Count]:
    """The gradient of the sum of a batch's losses, and their count; `.grad` does not change."""
    terms, count = losses.with_count(batch)
    if not count:  # the mean of no terms is nan
        return [torch.zeros_like(p) for p in parameters], count
    gradients = torch.autograd.grad(terms, parameters, torch.ones_like(terms), materialize_grads=True)
    return [as_real(g.to_dense()) for g in gradients], count


def adam_scale(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> Scale:
    """1 / (sqrt(v) + eps) of each parameter, the scaling of Adam's updates; v is the bias-corrected second moment.
    None if the optimizer has no `exp_avg_sq`, or has not made a step yet. Ones for a parameter without gradients.
    """
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    scale, found = [], False
    for p in parameters:
        kept, group = optimizer.state.get(p, {}), groups.get(id(p), {})
        moment = kept.get("max_exp_avg_sq", kept.get("exp_avg_sq"))
        if moment is None or moment.shape != p.shape or "betas" not in group:
            scale.append(torch.ones_like(as_real(p)))
            continue
        found = True
        unbiased = as_real(moment) / (1 - float(group["betas"][1]) ** float(kept["step"]))
        scale.append(1 / (unbiased.sqrt() + group["eps"]))
    return [s.detach() for s in scale] if found else None


def _seen(gradients: Sequence[Tensor], scale: Scale) -> Sequence[Tensor]:
    return gradients if scale is None else [g * s for g, s in zip(gradients, scale, strict=True)]


def _square(gradient: Tensor) -> Tensor:
    """The sum of all squares, 0-d and float64."""
    # In float64, because a hundred million small values are summed; but rows, of some thousand at most, in the
    # gradient's own dtype: converting every value takes ten times as long as computing the gradient.
    rows = torch.linalg.vector_norm(gradient.flatten(2) if gradient.dim() > 2 else gradient, dim=-1)
    total: Tensor = rows.double().square().sum()
    return total


def _added(sums: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, more, strict=True)] if sums else more
