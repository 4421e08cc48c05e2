"""Lets PyTorch's fused SGD train parameters that get their first gradient in a later step than others."""

from typing import Any

import torch


def allow_late_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Makes a step of fused SGD with momentum possible in which some parameters have no momentum yet.

    PyTorch's kernel takes either no momentum at all or one for each parameter (`_fused_sgd` in torch/optim/sgd.py), so
    it raises a TypeError where stochastic depth or a mixture of experts reaches a parameter late. The step of such a
    group is made by PyTorch's other implementation, in which a first momentum is the gradient. All other steps, and all
    other optimizers, are unchanged.
    """
    if isinstance(optimizer, torch.optim.SGD) and any(map(_keeps_momentum, optimizer.param_groups)):
        late = _Late()
        optimizer.register_step_pre_hook(late.before)
        optimizer.register_step_post_hook(late.after)


class _Late:
    """The two hooks of one optimizer. They get the optimizer at each call: a copy of it has a copy of them."""

    def __init__(self) -> None:
        self._done = False  # every parameter has its momentum
        self._unfused: list[int] = []  # positions of the groups that this step treats differently

    def before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        for position, group in enumerate(optimizer.param_groups):
            missing = {_has_none(optimizer, p) for p in group["params"] if p.grad is not None}
            if _keeps_momentum(group) and len(missing) == 2:
                group["fused"] = False
                self._unfused.append(position)

    def after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        if self._done:
            return
        while self._unfused:
            optimizer.param_groups[self._unfused.pop()]["fused"] = True
        groups = filter(_keeps_momentum, optimizer.param_groups)
        self._done = not any(_has_none(optimizer, p) for group in groups for p in group["params"])
        if self._done:  # one call less per step; PyTorch is iterating over the other hooks
            before = optimizer._optimizer_step_pre_hooks
            for key in [key for key, hook in before.items() if hook == self.before]:
                del before[key]


def _keeps_momentum(group: dict[str, Any]) -> bool:
    return bool(group.get("fused") and group.get("momentum"))


def _has_none(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> bool:
    return optimizer.state.get(p, {}).get("momentum_buffer") is None
