"""Telling "it does not fit" from every other error."""

import torch

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
