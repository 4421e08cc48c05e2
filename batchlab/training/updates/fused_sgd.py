"""Lets PyTorch's fused SGD train parameters with sparse gradients, or with a first gradient in a later step."""

from typing import Any

import torch


def allow_every_gradient(optimizer: torch.optim.Optimizer) -> None:
    """Makes the steps of fused SGD possible that PyTorch's kernel refuses (`_fused_sgd` in torch/optim/sgd.py).

    It takes either no momentum at all or one for each parameter, so it raises a TypeError where stochastic depth or a
    mixture of experts reaches a parameter late. The step of such a group is made by PyTorch's other implementation, in
    which a first momentum is the gradient. That also updates, from then on, a group with a sparse gradient, as of
    `nn.Embedding(sparse=True)`, which the kernel never takes. All other steps and optimizers are unchanged, but sparse
    momentum is coalesced after each step: PyTorch appends each gradient to it, so that steps take ever longer.
    """
    groups = [group for group in optimizer.param_groups if group.get("fused") or group.get("momentum")]
    if isinstance(optimizer, torch.optim.SGD) and groups:
        until = _UntilAllWereUpdated([p for group in groups for p in group["params"]])
        optimizer.register_step_pre_hook(until.before)
        optimizer.register_step_post_hook(until.after)


def unfuse(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """From now on PyTorch's other implementation updates the group."""
    group["fused"] = False
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # only fused kernels do


class _UntilAllWereUpdated:
    """The two hooks of one optimizer. They get the optimizer at each call: a copy of it has a copy of them."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self._left = parameters  # that have not been updated
        self._unfused: list[int] = []  # positions of the groups that this step treats differently
        self._coalesces = False

    def before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        if not all(group.get("fused") for group in optimizer.param_groups):  # as a checkpoint had them
            _skip_an_overflow(optimizer)
        for position, group in enumerate(optimizer.param_groups):
            given = [p for p in group["params"] if p.grad is not None]
            is_sparse = any(p.grad.is_sparse for p in given)
            if is_sparse and not self._coalesces:
                self._coalesces = True
                optimizer.register_step_post_hook(_coalesce)
            if not group.get("fused"):
                continue
            if is_sparse:
                unfuse(optimizer, group)
                _skip_an_overflow(optimizer)
            elif group.get("momentum") and len({_has_none(optimizer, p) for p in given}) == 2:
                group["fused"] = False
                self._unfused.append(position)

    def after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        if not self._left:
            return
        while self._unfused:
            optimizer.param_groups[self._unfused.pop()]["fused"] = True
        self._left = [p for p in self._left if p.grad is None and _has_none(optimizer, p)]
        if not self._left:  # one call less per step; PyTorch is iterating over the other hooks
            before = optimizer._optimizer_step_pre_hooks
            for key in [key for key, hook in before.items() if hook == self.before]:
                del before[key]


def _coalesce(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    del args, kwargs
    for state in optimizer.state.values():
        momentum = state.get("momentum_buffer")
        if momentum is not None and momentum.is_sparse:
            state["momentum_buffer"] = momentum.coalesce()


def _skip_an_overflow(optimizer: torch.optim.Optimizer) -> None:
    """For fp16: the gradient scaler may have left it to the fused kernel to skip this step, if gradients overflowed."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # from the next step on it does it itself
    found = getattr(optimizer, "found_inf", None)
    if found is not None:
        if found.item():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None
        optimizer.found_inf = None  # type: ignore[attr-defined]


def _has_none(optimizer: torch.optim.Optimizer, p: torch.Tensor) -> bool:
    return optimizer.state.get(p, {}).get("momentum_buffer") is None
