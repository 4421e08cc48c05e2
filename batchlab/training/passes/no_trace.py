"""Passing batches through a model without its noticing."""

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
    """Gradients, buffers (BatchNorm's), modes and random streams are afterwards what they were before.

    Inside, gradients start out empty. Weights and the optimizer are for the caller not to touch.
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
    """Passes inside leave no trace, are in training or in eval mode, and begin with the random numbers of `seed`."""
    with leaving_no_trace(model, precision.device), precision.training():
        model.train(training)
        seed_everything(seed, precision.device)
        yield


def seed_everything(seed: int, device: Device) -> None:
    """Every global stream of random numbers that user code may draw from: a model's on the GPU too."""
    seed_all(seed)
    device.seed(seed)
