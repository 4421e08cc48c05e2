"""From the `device` option to the device."""

from collections.abc import Collection

import torch

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.cuda import CudaDevice, allow_deterministic_products, visible_devices
from batchlab.training.devices.device import Device

__all__ = ["allow_deterministic", "device_named", "visible_devices"]


def allow_deterministic(asked: Collection[str]) -> None:
    """To be called before anything is computed in a process that makes deterministic points on the devices `asked`."""
    if any(device != "cpu" for device in asked):
        allow_deterministic_products()


def device_named(asked: str) -> Device:
    """The device that `cpu`, `cuda` (the first one) or `cuda:N` means in this process; BadRequest where it has none."""
    wanted = torch.device(asked)
    if wanted.type == "cpu":
        return CpuDevice()
    there = visible_devices()
    if not there:
        raise BadRequest(
            f"device={asked} was asked for, and PyTorch {torch.__version__} sees no CUDA device here: "
            "use device=cpu, or device=auto to take CUDA where there is one"
        )
    index = wanted.index or 0
    if index >= there:
        raise BadRequest(
            f"device={asked} is not here: PyTorch sees {counted(there, 'CUDA device')}, numbered from 0: "
            f"use device=cuda:{there - 1} at most, or device=cuda for the first"
        )
    return CudaDevice(index)
