"""Telling "it does not fit" from every other error."""

import torch

from batchlab.errors import BadRequest
from batchlab.records import RunStatus
from batchlab.training.devices.broken_context import advice

# SCIENCE 6. Each is what a PyTorch build (CUDA or ROCm) or one of its libraries says when memory ran out, lower case;
# nothing shorter, or a user's own "out of patience and memory" would be taken for a result.
CERTAIN = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cuda driver error: out of memory",  # with expandable_segments, whose allocations go past the runtime
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
    "cudnn_status_internal_error_device_allocation_failed",  # cuDNN 9's words for the line above
    "cudnn_status_internal_error_host_allocation_failed",
    "hipblas_status_alloc_failed",
    "hipsolver_status_alloc_failed",
    "miopenstatusallocfailed",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
)
# A library that found no room for its workspace or its handle says so in these words, and the same words where it
# cannot at all.
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
# Host memory that could not be page-locked for copies to the device: CUDA says "out of memory" of it too, and the
# device had room. So a DataLoader says it; what locks memory itself raises `NotPinnedError`.
PINNING = "in pin memory thread"
# A launch of too many blocks, or more elements than 32 bits can number: no memory would help.
KERNEL_LIMITS = (
    "cuda error: invalid configuration argument",
    "canuse32bitindexmath",
    "must fit into 32-bit index math",
    "more than int_max elements",
    "less than 2147483647 but got",
    "integer out of range",
)


class NotPinnedError(RuntimeError):
    """No host memory could be page-locked."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, where the batch is trained on; any other error does not."""
    if is_pinning(error):
        return False
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _says(error, TEXTS)


def is_pinning(error: BaseException) -> bool:
    """Whether `error` says that there was no host memory to lock: no batch size of the device's."""
    if isinstance(error, NotPinnedError):
        return True
    return PINNING in str(error) and (isinstance(error, torch.OutOfMemoryError) or _says(error, TEXTS))


def is_ambiguous(error: BaseException) -> bool:
    """Whether `error` means a lack of memory only where a smaller batch works."""
    return _says(error, AMBIGUOUS)


def is_kernel_limit(error: BaseException) -> bool:
    """Whether `error` says that a kernel cannot be asked for so much at once, however much memory there is."""
    return _says(error, KERNEL_LIMITS)


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    # What CUDA refuses while it starts comes as a kind of its own, which is no RuntimeError.
    by_pytorch = isinstance(error, RuntimeError) or type(error).__name__ == "DeferredCudaCallError"
    text = str(error).lower()
    return by_pytorch and any(known in text for known in texts)


def how_it_failed(error: BaseException) -> tuple[RunStatus, str]:
    """The status an error means, and the reason in one line."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return RunStatus.OOM, first_line
    if is_pinning(error):
        return (
            RunStatus.FAILED,
            "no host memory could be page-locked for copies to the device: raise its limit (ulimit -l), or use fewer "
            f"workers ({first_line})",
        )
    if isinstance(error, SystemExit):
        return RunStatus.FAILED, f"the model or data code called sys.exit({error.code})"
    if isinstance(error, BadRequest):
        return RunStatus.FAILED, first_line
    return RunStatus.FAILED, f"{type(error).__name__}: {first_line}{advice(error)}"
