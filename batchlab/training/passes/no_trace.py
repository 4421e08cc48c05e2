"""Runs a model and restores its state afterwards."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from batchlab.task import Batch
from batchlab.training.data.reading import seed_all
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.first_error import finally_do
from batchlab.training.losses import Losses
from batchlab.training.passes.attributes import kept, settle_whether_it_moves
from batchlab.training.passes.inputs import copied


@contextlib.contextmanager
def leaving_no_trace(
    model: nn.Module, device: Device, *, weights: bool = True, attributes: bool = True
) -> Iterator[None]:
    """Restores gradients, modes, random streams and what passes change in the model (`attributes.kept`) afterwards.

    Inside, gradients start out empty. The caller must not change the optimizer; without `weights` it may change
    parameters, and restores them itself. Without `attributes`, Python attributes of modules keep their changes.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    restore_model = kept(model, weights=weights, attributes=attributes)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state, device_state = torch.get_rng_state(), device.random_state()

    def put_back() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        for p, gradient in gradients:
            p.grad = gradient
        for module, training in modes:
            module.training = training
        restore_model()
        device.set_random_state(device_state)

    with finally_do(put_back):
        for p, _ in gradients:
            p.grad = None
        yield


@contextlib.contextmanager
def passing(
    model: nn.Module, precision: Precision, *, training: bool, seed: int, attributes: bool = True
) -> Iterator[None]:
    """Passes inside leave no trace, are in training or eval mode, and start with the random numbers of `seed`."""
    with leaving_no_trace(model, precision.device, attributes=attributes), precision.training():
        set_mode(model, training=training)
        seed_everything(seed, precision.device)
        yield


def set_mode(model: nn.Module, *, training: bool) -> None:
    """Eval mode for all modules, or training mode as the run has it: modules that the user keeps in eval mode stay so.

    A model in training mode is left as it is, because `train()` would change those.
    """
    if not training or not model.training:
        model.train(training)


def examine(losses: Losses, batch: Batch) -> None:
    """Passes the batch in both modes, to find out whether passes change the model's parameters; leaves no trace.

    If they do, or if the model cannot process this batch, later measurements copy the parameters.
    """
    with contextlib.suppress(Exception):
        for training in (False, True):
            with leaving_no_trace(losses.trained, losses.precision.device), torch.set_grad_enabled(training):
                set_mode(losses.trained, training=training)
                losses.quantities(copied(batch))
        settle_whether_it_moves(losses.trained)


def seed_everything(seed: int, device: Device) -> None:
    """Seeds every global random stream that user code may draw from, including the GPU's."""
    seed_all(seed)
    device.seed(seed)
