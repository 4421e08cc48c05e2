"""Rehearses an optimizer's first update on other parameters, so that one-time costs arise before the clock starts."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from batchlab.training.devices.precision import Precision
from batchlab.training.updates.closures import Closure, closure_needed
from batchlab.training.updates.twin import twin

LARGEST_AXIS = 2

StateLike = tuple[tuple[nn.Parameter, torch.dtype], ...]  # for each: a tensor of the parameter's shape and this dtype


@dataclass(frozen=True)
class Rehearsal:
    """What a first update of other parameters showed."""

    state_like: StateLike = ()  # the state that the real optimizer will create
    closure: Closure = Closure.NONE


def rehearse_update(optimizer: torch.optim.Optimizer, precision: Precision, clip_norm: float | None) -> Rehearsal:
    """One update by an optimizer of the same class and settings, of small parameters instead of the real ones.

    Their number, types, devices and axes are the same, so the kernels are those of the real first step, which otherwise
    loads them and imports modules: tens of milliseconds. Changes nothing of the run except random streams, which the
    caller restores. If the optimizer cannot do it (it needs sparse gradients, or has its own tensors for each weight),
    nothing is rehearsed; if it needs a closure, only that is found out.
    """
    stand_ins = {p: _small(p) for group in optimizer.param_groups for p in group["params"]}
    try:
        double = _double(optimizer, stand_ins)
        with_own_scale = copy.copy(precision)
        if precision.scaler is not None:
            with_own_scale.scaler = torch.amp.GradScaler(precision.device.torch_device.type)
            with_own_scale.scaler.scale(torch.ones((), device=precision.device.torch_device))  # makes the scale
        with_own_scale.update(double, list(stand_ins.values()), clip_norm)
    except Exception as failed:
        return Rehearsal(closure=_closure(optimizer, failed))
    # State restored from a checkpoint exists already.
    return Rehearsal(
        tuple(
            (p, value.dtype)
            for p, small in stand_ins.items()
            if p not in optimizer.state
            for value in double.state.get(small, {}).values()
            if isinstance(value, Tensor) and value.shape == small.shape and value.device == small.device
        )
    )


def _closure(optimizer: torch.optim.Optimizer, failed: Exception) -> Closure:
    stand_ins = {p: _small(p) for group in optimizer.param_groups for p in group["params"]}
    try:
        return closure_needed(_double(optimizer, stand_ins), list(stand_ins.values()), failed)
    except Exception:  # it cannot be copied
        return Closure.NONE


def _double(optimizer: torch.optim.Optimizer, stand_ins: Mapping[nn.Parameter, nn.Parameter]) -> torch.optim.Optimizer:
    double = twin(optimizer, stand_ins, with_state=False)
    # Hooks of the user, which may count the steps of the run.
    vars(double).update(_optimizer_step_pre_hooks=OrderedDict(), _optimizer_step_post_hooks=OrderedDict())
    return double


def _small(parameter: nn.Parameter) -> nn.Parameter:
    """A parameter with as many axes, none longer than `LARGEST_AXIS`, and a gradient."""
    shape = [min(size, LARGEST_AXIS) for size in parameter.shape]
    small = nn.Parameter(parameter.new_ones(shape), requires_grad=parameter.requires_grad)
    small.grad = torch.ones_like(small) if parameter.requires_grad else None
    return small
