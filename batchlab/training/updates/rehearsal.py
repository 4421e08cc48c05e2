"""The first update of an optimizer, made on something else: what is needed once is got outside the clock."""

import contextlib
import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from batchlab.training.devices.precision import Precision
from batchlab.training.updates.twin import twin

LARGEST_AXIS = 2

StateLike = tuple[tuple[nn.Parameter, torch.dtype], ...]  # a tensor of the parameter's shape, of that type, for each


def rehearse_update(optimizer: torch.optim.Optimizer, precision: Precision, clip_norm: float | None) -> StateLike:
    """One update by an optimizer of the same class and settings, of small parameters in the place of the real ones.

    Their number, types, devices and axes are the same, so the kernels are those of the real first step, which
    otherwise loads them and imports what it needs: tens of milliseconds. Returns what state the real one will make.
    Nothing of the run is touched, but random streams, which are for the caller to keep. An optimizer that cannot do it
    (one that wants sparse gradients, or keeps tensors of its own for each weight) is left to its first step.
    """
    stand_ins = {p: _small(p) for group in optimizer.param_groups for p in group["params"]}
    kept: StateLike = ()
    with contextlib.suppress(Exception):
        double = twin(optimizer, stand_ins, with_state=False)
        # The user's, who count the steps of the run.
        vars(double).update(_optimizer_step_pre_hooks=OrderedDict(), _optimizer_step_post_hooks=OrderedDict())
        with_own_scale = copy.copy(precision)
        if precision.scaler is not None:
            with_own_scale.scaler = torch.amp.GradScaler(precision.device.torch_device.type)
            with_own_scale.scaler.scale(torch.ones((), device=precision.device.torch_device))  # makes the scale
        with_own_scale.update(double, list(stand_ins.values()), clip_norm)
        # What was restored with a checkpoint is there already.
        kept = tuple(
            (p, value.dtype)
            for p, small in stand_ins.items()
            if p not in optimizer.state
            for value in double.state.get(small, {}).values()
            if isinstance(value, Tensor) and value.shape == small.shape and value.device == small.device
        )
    return kept


def _small(parameter: nn.Parameter) -> nn.Parameter:
    """As many axes, none longer than `LARGEST_AXIS`, with a gradient."""
    shape = [min(size, LARGEST_AXIS) for size in parameter.shape]
    small = nn.Parameter(parameter.new_ones(shape), requires_grad=parameter.requires_grad)
    small.grad = torch.ones_like(small) if parameter.requires_grad else None
    return small
