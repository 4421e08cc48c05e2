"""Copies an optimizer: the same class and settings, with separate state."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def twin(
    optimizer: torch.optim.Optimizer, weights: Mapping[nn.Parameter, nn.Parameter], *, with_state: bool = True
) -> torch.optim.Optimizer:
    """An optimizer like `optimizer`, with `weights[p]` instead of p; its state is a copy, or empty."""
    # Not copy.deepcopy(optimizer): its pickling keeps only groups and state, but a user's optimizer may have more
    # attributes. The memo maps weights to their replacements, so that they are not copied.
    double: torch.optim.Optimizer = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(p): other for p, other in weights.items()}
    memo[id(optimizer)] = double
    if not with_state:
        memo[id(optimizer.state)] = defaultdict(dict)
    vars(double).update(copy.deepcopy(vars(optimizer), memo))
    return double
