"""Tests whether PyTorch can use a device, by computing on it: what the driver reports is not enough."""

import functools
from collections.abc import Callable, Sequence

import torch

from batchlab.errors import BadRequest
from batchlab.training.devices.named import device_named, visible_devices
from batchlab.training.devices.out_of_memory import is_out_of_memory

CHOOSE = "choose another GPU with CUDA_VISIBLE_DEVICES=..."
# A part of an error of CUDA or PyTorch, its meaning, and what to do about it.
KNOWN: Sequence[tuple[str, str, str]] = (
    (
        "no kernel image",
        "this PyTorch has no kernels for this type of GPU",
        "install a PyTorch that supports it (https://pytorch.org/get-started/previous-versions)",
    ),
    (
        "driver on your system is too old",
        "its driver is too old for the CUDA version of this PyTorch",
        "update the driver, or install a PyTorch built for an older CUDA",
    ),
    ("forward compatibility", "its driver is older than the installed CUDA", "update the driver"),
    (
        "busy or unavailable",
        "it is in exclusive mode and in use, or in prohibited mode",
        f"wait for it, share it with `nvidia-smi -c DEFAULT`, or {CHOOSE}",
    ),
    ("no cuda gpus are available", "PyTorch sees no GPU", "see `batchlab doctor`"),
    ("found no nvidia driver", "PyTorch finds no NVIDIA driver", "install or start the driver"),
)


def why_unusable(
    requested: str, *, deterministic: bool = False, compute: Callable[[str], None] | None = None
) -> tuple[str, str] | None:
    """Why the `requested` device cannot be used and what would help; None if it can.

    BadRequest if it does not exist although others do. After an error this process may not be able to use CUDA, so it
    should end. `deterministic`: whether this process will need deterministic matrix products, which PyTorch decides
    at the first one. `compute` replaces the matrix product that is tried.
    """
    try:
        (compute or functools.partial(_multiply, deterministic=deterministic))(requested)
    except BadRequest:
        if ":" in requested or visible_devices():
            raise
        return _explained(_error_of_pytorch(requested))
    except Exception as error:  # any error of the libraries; no user code runs here
        return _explained(error)
    return None


def _multiply(requested: str, *, deterministic: bool) -> None:
    device = device_named(requested)
    device.prepare(deterministic=deterministic)
    ones = torch.ones(64, 64).to(device.torch_device)
    (ones @ ones).sum().item()  # waits for the result, so that errors are raised here


def _error_of_pytorch(requested: str) -> Exception:
    """PyTorch's error when it is used without a device: it says why there is none."""
    try:
        torch.empty(1, device=requested)
    except Exception as error:  # its type depends on the driver and the build
        return error
    return RuntimeError("PyTorch sees no GPU")


def _explained(error: Exception) -> tuple[str, str]:
    message = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        message = message.partition(" Of the allocated memory")[0]  # its PyTorch settings do not help here
        return f"its memory is full ({message})", f"wait for the programs that nvidia-smi lists, or {CHOOSE}"
    for text, meaning, instead in KNOWN:
        if text in str(error).lower():
            return f"{meaning} ({message})", instead
    return f"a matrix product fails on it ({type(error).__name__}: {message})", "see `batchlab doctor`"
