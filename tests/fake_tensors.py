"""Tensors that have a shape, a dtype and a device, and no numbers: PyTorch's FakeTensorMode, on `cuda:0` without a GPU.

An operation between the device and the host raises ("Expected all tensors to be on the same device"), and so does
whatever needs a number on the host: `.item()`, `bool(tensor)`, `tolist` (DataDependentOutputException). A backward pass
cannot be had: the autograd engine asks the driver. Not inside `faked_cuda`: where CUDA is said to be available,
FakeTensorMode opens a context.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from batchlab.task import Task
from batchlab.training.data.batches import permutation, rebuilt, tensors
from batchlab.training.devices.cpu import CpuDevice

GPU = torch.device("cuda", 0)


class FakeDevice(CpuDevice):
    """What code that is given a device needs of it here: where to put tensors."""

    kind = "cuda"

    def __init__(self) -> None:
        super().__init__()
        self.torch_device = GPU

    def holds(self, tensor: Tensor) -> bool:
        return tensor.device == GPU

    def settles(self) -> bool:
        return False


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeDevice]:
    """Inside, every tensor that is made is fake: the host's, or by `.to` the device's."""
    permutation.cache_clear()
    try:
        with FakeTensorMode():
            yield FakeDevice()
    finally:
        permutation.cache_clear()  # what was made inside has no numbers


def of_task(task: Task) -> Task:
    """The task with its sets on the device: inside `fake_gpu`, of a task that was made outside, with numbers."""
    (mode,) = (mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, FakeTensorMode))

    def there(data: Any) -> Any:
        return rebuilt(data, [mode.from_tensor(t).to(GPU) for t in tensors(data)])

    return dataclasses.replace(task, train=there(task.train), val=there(task.val))


def moved(model: nn.Module, device: torch.device = GPU) -> nn.Module:
    """The model with its parameters and buffers on `device`; `Module.to` does not take fake ones."""
    made: dict[int, Any] = {}  # those that several modules share stay shared
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = made.get(id(parameter))
                if there is None:
                    there = nn.Parameter(parameter.detach().to(device), parameter.requires_grad)
                    made[id(parameter)] = there
                module._parameters[name] = there
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = made.setdefault(id(buffer), buffer.to(device))
    return model
