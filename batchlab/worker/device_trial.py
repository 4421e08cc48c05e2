"""Whether PyTorch can compute on a device at all, asked of the device itself: a driver's promise is not enough."""

import functools
from collections.abc import Callable, Sequence

import torch

from batchlab.errors import BadRequest
from batchlab.training.devices.named import device_named, visible_devices
from batchlab.training.devices.out_of_memory import is_out_of_memory

CHOOSE = "choose another GPU with CUDA_VISIBLE_DEVICES=..."
# What CUDA or PyTorch says, what it means, and what to do about it.
KNOWN: Sequence[tuple[str, str, str]] = (
    (
        "no kernel image",
        "this PyTorch has no kernels for a GPU of its kind",
        "install a PyTorch that has (https://pytorch.org/get-started/previous-versions)",
    ),
    (
        "driver on your system is too old",
        "its driver is older than the CUDA that PyTorch is built for",
        "update the driver, or install a PyTorch built for an older CUDA",
    ),
    ("forward compatibility", "its driver is older than the CUDA that is installed beside it", "update the driver"),
    (
        "busy or unavailable",
        "it is in exclusive mode and in use, or in prohibited mode",
        f"wait for it, allow more with `nvidia-smi -c DEFAULT`, or {CHOOSE}",
    ),
    ("no cuda gpus are available", "PyTorch sees no GPU", "`batchlab doctor` says more"),
    ("found no nvidia driver", "PyTorch finds no NVIDIA driver", "install or start the driver"),
)


def why_unusable(
    asked: str, *, deterministic: bool = False, compute: Callable[[str], None] | None = None
) -> tuple[str, str] | None:
    """Why nothing can be computed on the device `asked` and what would help; None where something can.

    BadRequest for one that does not exist beside others that do. After an error this process may not be able to use
    CUDA any more, so it is one that ends. `deterministic`: whether a product that this process makes later is to be
    so, which PyTorch decides at the first. `compute` does what is tried, in place of one matrix product.
    """
    try:
        (compute or functools.partial(_multiply, deterministic=deterministic))(asked)
    except BadRequest:
        if ":" in asked or visible_devices():
            raise
        return _in_words(_what_pytorch_says(asked))
    except Exception as error:  # whatever a library below raises: none of it is the user's code yet
        return _in_words(error)
    return None


def _multiply(asked: str, *, deterministic: bool) -> None:
    device = device_named(asked)
    device.prepare(deterministic=deterministic)
    ones = torch.ones(64, 64).to(device.torch_device)
    (ones @ ones).sum().item()  # waits for it, so that what went wrong is raised here


def _what_pytorch_says(asked: str) -> Exception:
    """The error of PyTorch's own that its answer, no device, hides."""
    try:
        torch.empty(1, device=asked)
    except Exception as error:  # of any type, by the driver and the build
        return error
    return RuntimeError("PyTorch sees no GPU")


def _in_words(error: Exception) -> tuple[str, str]:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        said = said.partition(" Of the allocated memory")[0]  # what to set in PyTorch is no help against other programs
        return f"its memory is full ({said})", f"wait for the programs that nvidia-smi lists, or {CHOOSE}"
    for text, meaning, instead in KNOWN:
        if text in str(error).lower():
            return f"{meaning} ({said})", instead
    return f"one matrix product fails on it ({type(error).__name__}: {said})", "`batchlab doctor` looks at each GPU"
