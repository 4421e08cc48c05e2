"""Ghost BatchNorm: statistics over groups of fixed size, so that the BatchNorm batch and the batch size are two knobs.

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
    """Comes before a BatchNorm class, and passes it `ghost_batch` rows of the input after the other.

    Rows are the first axis: examples, wherever a model keeps them there. Running statistics move once for each ghost,
    as they would if each were a micro-batch: their memory is as long in examples at every batch size. Without running
    statistics to use (in training, or where none are kept) that is all; with them (eval mode) it is plain BatchNorm.

    The last ghost may be smaller. Where it would be one row with one value per channel, whose variance is 0, it joins
    the one before it.
    """

    ghost_batch: int

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in PyTorch
        forward = super().forward
        counts_the_batch = self.training or self.running_mean is None
        if not counts_the_batch or len(input) <= self.ghost_batch:
            return forward(input)
        sizes = ghost_sizes(len(input), self.ghost_batch, values_per_row=math.prod(input.shape[2:]))
        # One call after the other, not one over k times the channels: bit by bit what accumulation would do.
        return torch.cat([forward(ghost) for ghost in torch.split(input, sizes)])


def give_ghosts(model: nn.Module, ghost_batch: Any) -> None:
    """Makes every BatchNorm layer of `model` take its statistics over `ghost_batch` examples.

    Weights, buffers and the keys of `state_dict` stay. BadRequest where there is no such layer.
    """
    if not isinstance(ghost_batch, int) or isinstance(ghost_batch, bool) or ghost_batch < 1:
        raise BadRequest(
            f"model.ghost_batch={ghost_batch} cannot be: it is a number of examples, such as model.ghost_batch=32, "
            "or null for the whole micro-batch"
        )
    norms: list[Any] = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        raise BadRequest(
            f"model.ghost_batch={ghost_batch}: this model has no BatchNorm layer whose statistics it could part; use "
            "model.ghost_batch=null, or a model with BatchNorm (model=cnn, model.batch_norm=true)"
        )
    for norm in norms:
        # The class and not the module: a wrapper would rename the keys of `state_dict`, and a table of the three
        # classes of PyTorch would forget a user's own.
        kind: Any = type(norm)
        norm.__class__ = _ghost_of(kind)
        norm.ghost_batch = ghost_batch


def ghost_sizes(rows: int, ghost_batch: int, *, values_per_row: int) -> list[int]:
    """How `rows` of an input are parted; `values_per_row`: of each channel."""
    full, ragged = divmod(rows, ghost_batch)
    sizes = [ghost_batch] * full + ([ragged] if ragged else [])
    if values_per_row > 1:
        return sizes
    if ghost_batch == 1:
        raise BadRequest(
            "model.ghost_batch=1 leaves BatchNorm one value per channel, whose variance is 0: use at least 2"
        )
    return sizes if ragged != 1 else [*sizes[:-2], ghost_batch + 1]


@functools.cache
def _ghost_of(kind: type) -> type:
    return kind if issubclass(kind, GhostBatchNorm) else type(f"Ghost{kind.__name__}", (GhostBatchNorm, kind), {})
