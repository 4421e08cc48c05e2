"""Passing batches through a model without its noticing."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from batchlab.training.devices.device import Device


@contextlib.contextmanager
def leaving_no_trace(model: nn.Module, device: Device) -> Iterator[None]:
    """Gradients, buffers (BatchNorm's), modes and random streams are afterwards what they were before.

    Inside, gradients start out empty. Weights and the optimizer are for the caller not to touch.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=device.random_devices()):
            for p, _ in gradients:
                p.grad = None
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training
