"""Optimizers that compute the loss several times in a step, by a closure: LBFGS, sharpness-aware minimization."""

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn

from batchlab.errors import BadRequest


class Closure(Enum):
    """What an optimizer's step needs beside its parameters."""

    NONE = "their gradients"
    ALONE = "a closure, whose first call computes the gradients (LBFGS)"
    AFTER_GRADIENTS = "their gradients, and a closure for the other weights that it tries (sharpness-aware)"


def closure_needed(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], failed: Exception) -> Closure:
    """What an optimizer needs whose step without a closure failed, with the error `failed`; tries one step with one.

    `parameters` are those of `optimizer`, have gradients, and are changed: they are not those of a run.
    """
    before = [p.detach().clone() for p in parameters]
    gradients = [p.grad for p in parameters]
    moved: list[bool] = []  # at each call of the closure: whether the optimizer has changed the weights before

    def closure() -> Tensor:
        moved.append(any(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True)))
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = None if gradient is None else gradient.clone()
        return torch.ones(())

    try:
        optimizer.step(closure)  # type: ignore[arg-type]  # a 0-d tensor, as in the examples of PyTorch
    except Exception as error:
        if not moved or str(error) == str(failed):  # a closure is not what was missing
            return Closure.NONE
    return Closure.AFTER_GRADIENTS if moved and moved[0] else Closure.ALONE


def refuse_unless_possible(optimizer: torch.optim.Optimizer, *, accumulate: int, precision: str) -> None:
    """BadRequest if `optimizer`, which needs a closure, cannot get one in a run with these options."""
    why = f"{type(optimizer).__name__}, which computes the loss several times in each step (it requires a closure)"
    if accumulate > 1:
        raise BadRequest(
            f"more than one micro-batch per step does not work with {why}: use accumulate=1, or another optimizer"
        )
    if precision == "fp16":
        raise BadRequest(
            f"precision=fp16 does not work with {why}, because PyTorch's gradient scaler does not support closures: "
            "use precision=bf16 or precision=fp32, or another optimizer"
        )
