"""Ghost BatchNorm: statistics over groups of fixed size, so that BatchNorm does not depend on the batch size.

Hoffer et al. 2017, "Train longer, generalize better" (arXiv:1705.08741), algorithm 1.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest

BatchNorm = nn.modules.batchnorm._BatchNorm


class GhostBatchNorm(BatchNorm):
    """Mixed in before a BatchNorm class: passes the input to it in groups ("ghosts") of `ghost_batch` rows.

    Rows are the first axis, which is usually the example. Running statistics are updated once for each ghost, as if
    each were a micro-batch, so they average over as many examples at every batch size. Where running statistics are
    used (eval mode) it is plain BatchNorm. The last ghost may be smaller; if it would be one row with one value per
    channel, whose variance is 0, it is merged with the one before it.
    """

    ghost_batch: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in PyTorch
        forward = super().forward
        counts_the_batch = self.training or self.running_mean is None
        if not counts_the_batch or len(input) <= self.ghost_batch:
            return forward(input)
        sizes = ghost_sizes(len(input), self.ghost_batch, values_per_row=math.prod(input.shape[2:]))
        # Sequential calls, not one over k times the channels: bitwise what accumulation would give.
        return torch.cat([forward(ghost) for ghost in torch.split(input, sizes)])


def give_ghosts(model: nn.Module, ghost_batch: Any) -> None:
    """Makes every BatchNorm layer of `model` compute its statistics over `ghost_batch` examples.

    Weights, buffers and the keys of `state_dict` do not change. BadRequest if there is no such layer.
    """
    if not isinstance(ghost_batch, int) or isinstance(ghost_batch, bool) or ghost_batch < 1:
        raise BadRequest(
            f"model.ghost_batch={ghost_batch} is invalid: it is a number of examples, such as model.ghost_batch=32, "
            "or null for the whole micro-batch"
        )
    norms: list[Any] = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        raise BadRequest(
            f"model.ghost_batch={ghost_batch} has no effect, because this model has no BatchNorm layer: use "
            "model.ghost_batch=null, or a model with BatchNorm (model=cnn, model.batch_norm=true)"
        )
    for norm in norms:
        # Change the class, not the module: a wrapper would rename the keys of `state_dict`, and a table of PyTorch's
        # three classes would miss a user's own.
        kind: Any = type(norm)
        norm.__class__ = _ghost_of(kind)
        norm.ghost_batch = ghost_batch


def ghost_sizes(rows: int, ghost_batch: int, *, values_per_row: int) -> list[int]:
    """How `rows` of an input are divided; `values_per_row`: of each channel."""
    full, ragged = divmod(rows, ghost_batch)
    sizes = [ghost_batch] * full + ([ragged] if ragged else [])
    if values_per_row > 1:
        return sizes
    if ghost_batch == 1:
        raise BadRequest(
            "model.ghost_batch=1 gives BatchNorm only one value per channel, whose variance is 0: use at least 2"
        )
    return sizes if ragged != 1 else [*sizes[:-2], ghost_batch + 1]


@functools.cache
def _ghost_of(kind: type) -> type:
    return kind if issubclass(kind, GhostBatchNorm) else type(f"Ghost{kind.__name__}", (GhostBatchNorm, kind), {})
