"""What a device that cannot be used is reported as, from the errors of CUDA and PyTorch."""

import os
from collections.abc import Callable

import pytest
import torch
from plain_defaults import configured
from simulated_device import simulated_cuda

from batchlab.errors import BadRequest
from batchlab.worker.device_trial import why_unusable
from batchlab.worker.entry import check
from batchlab.worker.messages import DeviceFailed, GridAccepted


def raising(error: Exception) -> Callable[[str], None]:
    def compute(requested: str) -> None:
        raise error

    return compute


@pytest.mark.parametrize(
    ("error", "why", "instead"),
    [
        (
            torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel"),
            "no kernels for this type of GPU (CUDA error: no kernel image is available for execution on the device)",
            "install a PyTorch that supports it",
        ),
        (
            RuntimeError("The NVIDIA driver on your system is too old (found version 12040). Please update"),
            "its driver is too old for the CUDA version of this PyTorch",
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
        (RuntimeError("cudnn fell over"), "a matrix product fails on it (RuntimeError: cudnn fell over)", "doctor"),
    ],
)
def test_a_device_that_fails_is_reported_with_what_helps(error: Exception, why: str, instead: str) -> None:
    found = why_unusable("cuda", compute=raising(error))

    assert found is not None
    assert why in found[0]
    assert instead in found[1]


def test_no_device_at_all_is_reported_in_pytorchs_own_words() -> None:
    """PyTorch's count of devices is 0, and only a use of one says why."""
    found = why_unusable("cuda", compute=raising(BadRequest("finds no CUDA device here")))

    assert found is not None
    assert found[0].startswith("PyTorch finds no NVIDIA driver (Found no NVIDIA driver on your system")


def test_what_a_request_forbids_is_not_taken_for_a_lack_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")

    with simulated_cuda(), pytest.raises(BadRequest, match="unset it, or use deterministic=false"):
        why_unusable("cuda", deterministic=True)


def test_a_device_that_is_not_there_next_to_others_is_a_bad_request() -> None:
    with simulated_cuda(count=2), pytest.raises(BadRequest, match="device=cuda:9 does not exist"):
        why_unusable("cuda:9")


def test_a_device_that_computes_is_usable_and_one_that_is_broken_is_not() -> None:
    with simulated_cuda(count=2) as cuda:
        assert [why_unusable(requested) for requested in ("cuda", "cuda:1")] == [None, None]
        cuda.gpus[1].broken = "unspecified launch failure"
        assert why_unusable("cuda") is None
        found = why_unusable("cuda:1")

    assert found is not None
    assert "unspecified launch failure" in found[0]


def test_a_product_that_is_tried_leaves_later_ones_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS's workspace is read at the first product of a process: the one of the trial."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "to be put back, whatever it was")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr("batchlab.worker.preflight.examine", lambda grid: ([], []))
    seen: list[str | None] = []
    with simulated_cuda() as cuda:
        cuda.gpus[0].before_kernel = lambda _: seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        found = check([configured(device="cuda"), configured(device="cuda", deterministic=True)])
    torch.use_deterministic_algorithms(False)

    assert set(seen) == {":4096:8"}
    assert found == GridAccepted(())


def test_a_device_that_fails_ends_the_check_of_a_grid_first() -> None:
    with simulated_cuda() as cuda:
        cuda.gpus[0].broken = "no kernel image is available for execution on the device"
        found = check([configured(device="cpu"), configured(device="cuda")])

    assert isinstance(found, DeviceFailed)
    assert found.device == "cuda"
    assert found.why.startswith("this PyTorch has no kernels for this type of GPU")
