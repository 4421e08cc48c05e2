"""An optimizer's double: the same class and settings, with a state of its own."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def twin(
    optimizer: torch.optim.Optimizer, weights: Mapping[nn.Parameter, nn.Parameter], *, with_state: bool = True
) -> torch.optim.Optimizer:
    """An optimizer like `optimizer`, of `weights[p]` where it has p; its state is now equal, or empty."""
    # Not copy.deepcopy(optimizer): its pickling keeps the groups and the state alone, and an optimizer of the user's
    # may hold more. The memo says what stands for the weights, which are not to be copied.
    double: torch.optim.Optimizer = object.__new__(type(optimizer))
    memo: dict[int, Any] = {id(p): other for p, other in weights.items()}
    memo[id(optimizer)] = double
    if not with_state:
        memo[id(optimizer.state)] = defaultdict(dict)
    vars(double).update(copy.deepcopy(vars(optimizer), memo))
    return double
