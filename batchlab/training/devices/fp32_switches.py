"""PyTorch's switches of what an fp32 product runs in: the `fp32_precision` of each kind of operation (torch >= 2.9).

The older `allow_tf32` and `set_float32_matmul_precision` are views of the same switches; PyTorch raises where the two
disagree and somebody reads the older one (`torch.backends.cudnn.flags()` does). So both are set, the older first.
A switch that is `none` follows the one above it (of all of CUDA, then of everything); where that is none too, it is
fp32. The older setters leave `none`, so the one above is set as well.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_backends: Any = torch.backends  # its stubs lack what is set at run time
IEEE, TF32, NONE = "ieee", "tf32", "none"


def cuda_switches() -> tuple[str, str, str]:
    """Of matrix products, convolutions and recurrent layers on CUDA."""
    cudnn = _backends.cudnn
    return _backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision


def set_cuda_switches(matmul: str, conv: str, rnn: str, *, above: str) -> None:
    """`above`: of all of CUDA, for a switch that is `none`."""
    torch.set_float32_matmul_precision("high" if matmul == TF32 else "highest")
    _backends.cudnn.allow_tf32 = conv == TF32
    _backends.cudnn.fp32_precision = above
    _backends.cuda.matmul.fp32_precision = matmul
    _backends.cudnn.conv.fp32_precision = conv
    _backends.cudnn.rnn.fp32_precision = rnn


def cpu_switches() -> tuple[str, str, str]:
    """The same of oneDNN, which may use bf16 or TF32 inside where a model's code asked for speed."""
    onednn = _backends.mkldnn
    return onednn.matmul.fp32_precision, onednn.conv.fp32_precision, onednn.rnn.fp32_precision


def set_cpu_switches(matmul: str, conv: str, rnn: str) -> None:
    _backends.mkldnn.matmul.fp32_precision = matmul
    _backends.mkldnn.conv.fp32_precision = conv
    _backends.mkldnn.rnn.fp32_precision = rnn


@contextlib.contextmanager
def cuda_in(precision: str) -> Iterator[None]:
    """Inside, all three of CUDA are `precision`; afterwards what they were."""
    before, above, on_cpu = cuda_switches(), _backends.cudnn.fp32_precision, cpu_switches()
    # Where it is TF32, whoever switches one off is to be seen, and `none` must not mean TF32.
    set_cuda_switches(precision, precision, precision, above=IEEE if precision == IEEE else NONE)
    try:
        yield
    finally:
        set_cuda_switches(*before, above=above)
        set_cpu_switches(*on_cpu)  # set_float32_matmul_precision is of both


@contextlib.contextmanager
def cpu_in_ieee() -> Iterator[None]:
    """Inside, oneDNN keeps fp32; afterwards what it did."""
    before = cpu_switches()
    set_cpu_switches(IEEE, IEEE, IEEE)
    try:
        yield
    finally:
        set_cpu_switches(*before)
