"""Runs a model and restores its state afterwards."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from batchlab.training.data.reading import seed_all
from batchlab.training.devices.device import Device
from batchlab.training.devices.precision import Precision
from batchlab.training.first_error import finally_do


@contextlib.contextmanager
def leaving_no_trace(model: nn.Module, device: Device) -> Iterator[None]:
    """Restores gradients, buffers (BatchNorm's), modes and random streams afterwards.

    Inside, gradients start out empty. The caller must not change weights or the optimizer.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state, device_state = torch.get_rng_state(), device.random_state()

    def put_back() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training
        device.set_random_state(device_state)

    with finally_do(put_back):
        for p, _ in gradients:
            p.grad = None
        yield


@contextlib.contextmanager
def passing(model: nn.Module, precision: Precision, *, training: bool, seed: int) -> Iterator[None]:
    """Passes inside leave no trace, are in training or eval mode, and start with the random numbers of `seed`."""
    with leaving_no_trace(model, precision.device), precision.training():
        model.train(training)
        seed_everything(seed, precision.device)
        yield


def seed_everything(seed: int, device: Device) -> None:
    """Seeds every global random stream that user code may draw from, including the GPU's."""
    seed_all(seed)
    device.seed(seed)
