"""What a device that cannot be used is said to be, of the words that CUDA and PyTorch have for it."""

from collections.abc import Callable

import pytest
import torch
from simulated_device import simulated_cuda

from batchlab.device_trial import why_unusable
from batchlab.errors import BadRequest


def raising(error: Exception) -> Callable[[str], None]:
    def compute(asked: str) -> None:
        raise error

    return compute


@pytest.mark.parametrize(
    ("error", "why", "instead"),
    [
        (
            torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel"),
            "no kernels for a GPU of its kind (CUDA error: no kernel image is available for execution on the device)",
            "install a PyTorch that has",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update"),
            "its driver is older than the CUDA that PyTorch is built for",
            "update the driver, or install a PyTorch built for an older CUDA",
        ),
        (
            torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"),
            "it is in exclusive mode and in use, or in prohibited mode",
            "nvidia-smi -c DEFAULT",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"),
            "its memory is full",
            "nvidia-smi lists",
        ),
        (torch.AcceleratorError("CUDA error: out of memory"), "its memory is full", "CUDA_VISIBLE_DEVICES"),
        (RuntimeError("cudnn fell over"), "one matrix product fails on it (RuntimeError: cudnn fell over)", "doctor"),
    ],
)
def test_a_device_that_fails_is_told_with_what_helps(error: Exception, why: str, instead: str) -> None:
    found = why_unusable("cuda", raising(error))

    assert found is not None
    assert why in found[0]
    assert instead in found[1]


def test_no_device_at_all_is_told_in_pytorchs_own_words() -> None:
    """PyTorch's count of devices is 0, and only a use of one says why."""
    found = why_unusable("cuda", raising(BadRequest("sees no CUDA device here")))

    assert found is not None
    assert found[0].startswith("PyTorch finds no NVIDIA driver (Found no NVIDIA driver on your system")


def test_a_device_that_is_not_there_beside_others_is_a_bad_request() -> None:
    with simulated_cuda(count=2), pytest.raises(BadRequest, match="device=cuda:9 is not here"):
        why_unusable("cuda:9")


def test_a_device_that_computes_is_usable_and_one_that_is_broken_is_not() -> None:
    with simulated_cuda(count=2) as cuda:
        assert [why_unusable(asked) for asked in ("cuda", "cuda:1")] == [None, None]
        cuda.gpus[1].broken = "unspecified launch failure"
        assert why_unusable("cuda") is None
        found = why_unusable("cuda:1")

    assert found is not None
    assert "unspecified launch failure" in found[0]
