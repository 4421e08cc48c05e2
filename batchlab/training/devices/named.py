"""From the `device` option to the device."""

from collections.abc import Collection

import torch

from batchlab.errors import BadRequest
from batchlab.printable import counted
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.cuda import CudaDevice, allow_deterministic_products, visible_devices
from batchlab.training.devices.device import Device

__all__ = ["allow_deterministic", "device_named", "visible_devices"]


def allow_deterministic(requested: Collection[str]) -> None:
    """Call this before anything is computed in a process that trains deterministic points on `requested` devices."""
    if any(device != "cpu" for device in requested):
        allow_deterministic_products()


def device_named(requested: str) -> Device:
    """The device that `cpu`, `cuda` (the first one) or `cuda:N` means in this process; BadRequest if it has none."""
    wanted = torch.device(requested)
    if wanted.type == "cpu":
        return CpuDevice()
    there = visible_devices()
    if not there:
        raise BadRequest(
            f"device={requested} was requested, but PyTorch {torch.__version__} finds no CUDA device here: "
            "use device=cpu, or device=auto to use CUDA if there is one"
        )
    index = wanted.index or 0
    if index >= there:
        raise BadRequest(
            f"device={requested} does not exist: PyTorch finds {counted(there, 'CUDA device')}, numbered from 0: "
            f"use device=cuda:{there - 1} at most, or device=cuda for the first"
        )
    return CudaDevice(index)
