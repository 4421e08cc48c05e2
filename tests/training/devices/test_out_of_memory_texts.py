"""Out-of-memory messages of PyTorch and its libraries, and similar messages."""

import pytest
import torch

from batchlab.records import RunStatus
from batchlab.training.devices.cuda_copies import CudaCopies, PinnedRows, pinned
from batchlab.training.devices.out_of_memory import (
    NotPinnedError,
    how_it_failed,
    is_ambiguous,
    is_out_of_memory,
    is_pinning,
)

CUDA = torch.device("cuda", 0)


class DeferredCudaCallError(Exception):
    """As raised by torch.cuda during CUDA's initialisation: not a RuntimeError."""


PINNED = """Caught AcceleratorError in pin memory thread for device 0.
Original Traceback (most recent call last):
  File "pin_memory.py", line 40, in do_one_step
torch.AcceleratorError: CUDA error: out of memory
"""
SAID = {
    "the allocator": RuntimeError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1 GiB"
    ),
    "the runtime": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "the driver, under expandable segments": RuntimeError("CUDA driver error: out of memory"),
    "outside the allocator": RuntimeError("CUDA ran out of memory outside PyTorch's allocator. If this workload"),
    "a Triton kernel": RuntimeError("Triton Error [CUDA]: out of memory"),
    "a Triton kernel on ROCm": RuntimeError("Triton Error [HIP]: out of memory"),
    "ROCm": RuntimeError("HIP error: out of memory"),
    "ROCm's allocator": RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
    "hipBLAS": RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuSOLVER": RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    "cuFFT": RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    "cuDNN 8": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuDNN 9": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    "cuDNN 9, of the host": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    "the CPU": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "CUDA while it starts": DeferredCudaCallError("CUDA call failed lazily at init: CUDA error: out of memory"),
    "PyTorch's own kind": torch.OutOfMemoryError("CUDA out of memory."),
    "Python": MemoryError(),
    "a convolution": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuBLAS's handle": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "oneDNN": RuntimeError("could not create a primitive"),  # observed in `find` with a limit of 32 MiB
}
NOT_SAID = {
    "a user's joke": RuntimeError("out of memory of patience"),
    "a lookup": KeyError("CUDA out of memory"),
    "a user's own check": ValueError("DefaultCPUAllocator: can't allocate memory"),
    "a product that cuBLAS refused": RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm`"
    ),
    "a product that failed": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    "an assertion on the device": RuntimeError("CUDA error: device-side assert triggered"),
    "a driver that is too old": RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
    "host memory that could not be locked": RuntimeError(PINNED),
    "the same by another kind": torch.OutOfMemoryError(PINNED),
}


@pytest.mark.parametrize("who", SAID)
def test_every_out_of_memory_message_is_recognised(who):
    assert is_out_of_memory(SAID[who])
    assert how_it_failed(SAID[who])[0] is RunStatus.OOM


@pytest.mark.parametrize("who", NOT_SAID)
def test_similar_messages_are_not_out_of_memory(who):
    assert not is_out_of_memory(NOT_SAID[who])
    assert how_it_failed(NOT_SAID[who])[0] is RunStatus.FAILED


def test_a_library_without_memory_for_its_handle_is_ambiguous():
    assert [who for who in SAID if is_ambiguous(SAID[who])] == ["a convolution", "cuBLAS's handle", "oneDNN"]


@pytest.mark.parametrize("ours", [lambda t: pinned(t), lambda t: PinnedRows([t], CudaCopies(CUDA))(t)])
def test_host_memory_that_we_could_not_lock_is_not_a_result_of_the_batch_size(ours):
    class Unlockable(torch.Tensor):
        def pin_memory(self):
            raise torch.AcceleratorError("CUDA error: out of memory")

        def new_empty(self, *_):
            return self

    with pytest.raises(NotPinnedError) as raised:
        ours(torch.arange(3).as_subclass(Unlockable))

    assert not is_out_of_memory(raised.value)
    status, reason = how_it_failed(raised.value)
    assert status is RunStatus.FAILED
    assert "raise the limit (ulimit -l)" in reason


def test_host_memory_that_could_not_be_locked_is_reported_with_advice():
    assert [who for who in (SAID | NOT_SAID) if is_pinning((SAID | NOT_SAID)[who])] == list(NOT_SAID)[-2:]
    assert "use fewer workers" in how_it_failed(NOT_SAID["host memory that could not be locked"])[1]
