"""Tensors with a shape, a dtype and a device but without values: PyTorch's FakeTensorMode, on `cuda:0` without a GPU.

An operation between the device and the host raises ("Expected all tensors to be on the same device"), and so does any
read of a value on the host: `.item()`, `bool(tensor)`, `tolist` (DataDependentOutputException). A backward pass is not
possible, because the autograd engine calls the driver. Do not use it inside `faked_cuda`: if CUDA is reported as
available, FakeTensorMode opens a context.
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
from batchlab.training.data.order import permutation
from batchlab.training.data.trees import rebuilt, tensors
from batchlab.training.devices.cpu import CpuDevice

GPU = torch.device("cuda", 0)


class FakeDevice(CpuDevice):
    """A device that only defines where tensors are put."""

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
    """Inside, every new tensor is fake: on the host, or after `.to` on the device."""
    permutation.cache_clear()
    try:
        with FakeTensorMode():
            yield FakeDevice()
    finally:
        permutation.cache_clear()  # tensors made inside have no values


def of_task(task: Task) -> Task:
    """The task with its sets on the device: call it inside `fake_gpu` for a task that was made outside, with values."""
    (mode,) = (mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, FakeTensorMode))

    def there(data: Any) -> Any:
        return rebuilt(data, [mode.from_tensor(t).to(GPU) for t in tensors(data)])

    return dataclasses.replace(task, train=there(task.train), val=there(task.val))


def moved(model: nn.Module, device: torch.device = GPU) -> nn.Module:
    """The model with its parameters and buffers on `device`; `Module.to` does not support fake ones."""
    made: dict[int, Any] = {}  # shared parameters stay shared
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
