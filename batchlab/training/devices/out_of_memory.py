"""Telling "it does not fit" from every other error."""

import torch

from batchlab.errors import BadRequest
from batchlab.records import RunStatus

# SCIENCE 6. Each is what a PyTorch build says when memory ran out, lower case; nothing shorter, or a user's own
# "out of patience and memory" would be taken for a result.
CERTAIN = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
)
# A library that found no room for its workspace says so in these words, and the same words where it cannot at all.
AMBIGUOUS = (
    "unable to find an engine to execute this computation",
    "no valid cudnn algorithm",
    "unable to find a valid cudnn algorithm",
)
TEXTS = (*CERTAIN, *AMBIGUOUS)
# A launch of too many blocks, or more elements than 32 bits can number: no memory would help.
KERNEL_LIMITS = (
    "cuda error: invalid configuration argument",
    "canuse32bitindexmath",
    "must fit into 32-bit index math",
    "more than int_max elements",
    "less than 2147483647 but got",
    "integer out of range",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; any other RuntimeError does not."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _says(error, TEXTS)


def is_ambiguous(error: BaseException) -> bool:
    """Whether `error` means a lack of memory only where a smaller batch works."""
    return _says(error, AMBIGUOUS)


def is_kernel_limit(error: BaseException) -> bool:
    """Whether `error` says that a kernel cannot be asked for so much at once, however much memory there is."""
    return _says(error, KERNEL_LIMITS)


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(known in text for known in texts)


def how_it_failed(error: BaseException) -> tuple[RunStatus, str]:
    """The status an error means, and the reason in one line."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return RunStatus.OOM, first_line
    if isinstance(error, SystemExit):
        return RunStatus.FAILED, f"the model or data code called sys.exit({error.code})"
    return RunStatus.FAILED, first_line if isinstance(error, BadRequest) else f"{type(error).__name__}: {first_line}"
