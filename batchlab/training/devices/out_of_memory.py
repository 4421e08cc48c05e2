"""Distinguishes out-of-memory errors from all others."""

import torch

from batchlab.errors import BadRequest
from batchlab.records import RunStatus
from batchlab.training.devices.broken_context import advice

# SCIENCE 6. Each is a message of a PyTorch build (CUDA or ROCm) or one of its libraries when memory ran out, in lower
# case; nothing shorter, or a user's own "out of patience and memory" would be taken for a result.
CERTAIN = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda driver error: out of memory",  # with expandable_segments, whose allocations bypass the runtime
    "cuda ran out of memory outside pytorch's allocator",
    "hip out of memory",
    "hip error: out of memory",
    "hip driver error: out of memory",
    "triton error [cuda]: out of memory",
    "triton error [hip]: out of memory",
    "cublas_status_alloc_failed",
    "cusolver_status_alloc_failed",
    "cusparse_status_alloc_failed",
    "cufft_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",  # the same in cuDNN 9
    "cudnn_status_internal_error_host_allocation_failed",
    "hipblas_status_alloc_failed",
    "hipsolver_status_alloc_failed",
    "miopenstatusallocfailed",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
)
# Messages of a library that has no memory for its workspace or handle; it uses the same ones when the operation is
# not possible at all.
AMBIGUOUS = (
    "unable to find an engine to execute this computation",
    "no valid cudnn algorithm",
    "unable to find a valid cudnn algorithm",
    "no valid convolution algorithms available in cudnn",
    "cublas_status_not_initialized when calling `cublascreate",
    "hipblas_status_not_initialized when calling `hipblascreate",
    "could not create a primitive",  # oneDNN's, on the CPU
)
TEXTS = (*CERTAIN, *AMBIGUOUS)
# Host memory that could not be page-locked for copies to the device: CUDA also reports "out of memory", although the
# device has some. This is a DataLoader's message; our own code that locks memory raises `NotPinnedError`.
PINNING = "in pin memory thread"
# A launch of too many blocks, or more elements than 32 bits can index: more memory would not help.
KERNEL_LIMITS = (
    "cuda error: invalid configuration argument",
    "canuse32bitindexmath",
    "must fit into 32-bit index math",
    "more than int_max elements",
    "less than 2147483647 but got",
    "integer out of range",
)


class NotPinnedError(RuntimeError):
    """Host memory could not be page-locked."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the memory used for training ran out."""
    if is_pinning(error):
        return False
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _says(error, TEXTS)


def is_pinning(error: BaseException) -> bool:
    """Whether `error` means that host memory could not be page-locked, which says nothing about the batch size."""
    if isinstance(error, NotPinnedError):
        return True
    return PINNING in str(error) and (isinstance(error, torch.OutOfMemoryError) or _says(error, TEXTS))


def is_ambiguous(error: BaseException) -> bool:
    """Whether `error` means a lack of memory only if a smaller batch works."""
    return _says(error, AMBIGUOUS)


def is_kernel_limit(error: BaseException) -> bool:
    """Whether `error` means that a kernel's size limit was exceeded, which does not depend on memory."""
    return _says(error, KERNEL_LIMITS)


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    # Errors during CUDA's initialisation have a separate type, which is not a RuntimeError.
    by_pytorch = isinstance(error, RuntimeError) or type(error).__name__ == "DeferredCudaCallError"
    text = str(error).lower()
    return by_pytorch and any(known in text for known in texts)


def how_it_failed(error: BaseException) -> tuple[RunStatus, str]:
    """The run status for an error, and the reason in one line."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return RunStatus.OOM, first_line
    if is_pinning(error):
        return (
            RunStatus.FAILED,
            "host memory could not be page-locked for copies to the device: raise the limit (ulimit -l), or use fewer "
            f"workers ({first_line})",
        )
    if isinstance(error, SystemExit):
        return RunStatus.FAILED, f"the model or data code called sys.exit({error.code})"
    if isinstance(error, BadRequest):
        return RunStatus.FAILED, first_line
    return RunStatus.FAILED, f"{type(error).__name__}: {first_line}{advice(error)}"
