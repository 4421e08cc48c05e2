"""PyTorch's settings for the precision of fp32 products: the `fp32_precision` of each operation (torch >= 2.9).

The older `allow_tf32` and `set_float32_matmul_precision` are views of the same settings; PyTorch raises an error if
the two disagree and the older one is read (as in `torch.backends.cudnn.flags()`). So both are set, the older first.
A setting of `none` inherits from the one above it (for all of CUDA, then global); if that is none too, it is fp32.
The older setters leave `none`, so the one above is set as well.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_backends: Any = torch.backends  # its stubs lack attributes that are set at run time
IEEE, TF32, NONE = "ieee", "tf32", "none"


def cuda_switches() -> tuple[str, str, str]:
    """The settings for matrix products, convolutions and recurrent layers on CUDA."""
    cudnn = _backends.cudnn
    return _backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision


def set_cuda_switches(matmul: str, conv: str, rnn: str, *, above: str) -> None:
    """`above`: the setting for all of CUDA, which `none` inherits."""
    torch.set_float32_matmul_precision("high" if matmul == TF32 else "highest")
    _backends.cudnn.allow_tf32 = conv == TF32
    _backends.cudnn.fp32_precision = above
    _backends.cuda.matmul.fp32_precision = matmul
    _backends.cudnn.conv.fp32_precision = conv
    _backends.cudnn.rnn.fp32_precision = rnn


def cpu_switches() -> tuple[str, str, str]:
    """The same for oneDNN, which may use bf16 or TF32 internally if a model's code requested it."""
    onednn = _backends.mkldnn
    return onednn.matmul.fp32_precision, onednn.conv.fp32_precision, onednn.rnn.fp32_precision


def set_cpu_switches(matmul: str, conv: str, rnn: str) -> None:
    _backends.mkldnn.matmul.fp32_precision = matmul
    _backends.mkldnn.conv.fp32_precision = conv
    _backends.mkldnn.rnn.fp32_precision = rnn


@contextlib.contextmanager
def cuda_in(precision: str) -> Iterator[None]:
    """Sets all three CUDA settings to `precision`; restores them afterwards."""
    before, above, on_cpu = cuda_switches(), _backends.cudnn.fp32_precision, cpu_switches()
    # With TF32, code that switches one off must be detected, so `none` must not mean TF32.
    set_cuda_switches(precision, precision, precision, above=IEEE if precision == IEEE else NONE)
    try:
        yield
    finally:
        set_cuda_switches(*before, above=above)
        set_cpu_switches(*on_cpu)  # set_float32_matmul_precision changes both


@contextlib.contextmanager
def cpu_in_ieee() -> Iterator[None]:
    """Keeps oneDNN in fp32; restores its settings afterwards."""
    before = cpu_switches()
    set_cpu_switches(IEEE, IEEE, IEEE)
    try:
        yield
    finally:
        set_cpu_switches(*before)
