"""Telling "it does not fit" from every other error."""

import torch

from batchlab.errors import BadRequest
from batchlab.records import RunStatus

# SCIENCE 6. Each is what a PyTorch build says when memory ran out, lower case; nothing shorter, or a user's own
# "out of patience and memory" would be taken for a result.
TEXTS = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to find an engine to execute this computation",
    "no valid cudnn algorithm",
    "unable to find a valid cudnn algorithm",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; any other RuntimeError does not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(known in text for known in TEXTS)


def how_it_failed(error: BaseException) -> tuple[RunStatus, str]:
    """The status an error means, and the reason in one line."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if is_out_of_memory(error):
        return RunStatus.OOM, first_line
    if isinstance(error, SystemExit):
        return RunStatus.FAILED, f"the model or data code called sys.exit({error.code})"
    return RunStatus.FAILED, first_line if isinstance(error, BadRequest) else f"{type(error).__name__}: {first_line}"
