"""Norms and clipping of gradients of every kind: dense, sparse (of an embedding) and complex."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def as_real(tensor: Tensor) -> Tensor:
    """The tensor, or if it is complex, its real and imaginary parts along a last axis: what norms and products need."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def real_values(gradient: Tensor) -> Tensor:
    """The values of a gradient that may differ from 0, as real numbers: of a sparse one, those of its rows, each once
    (an embedding's has a row for each time that a word is used)."""
    return as_real(gradient.coalesce().values() if gradient.is_sparse else gradient)


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all values together, 0-d; 0 of none, as where a batch has no terms."""
    if not tensors:
        return torch.zeros((), dtype=torch.float64)
    # float64: the sum is over the squares of a hundred million small values
    each = torch.stack([torch.linalg.vector_norm(real_values(t), dtype=torch.float64) for t in tensors])
    total: Tensor = torch.linalg.vector_norm(each)
    return total


def inner_product(first: Tensor, second: Tensor) -> Tensor:
    """The sum of the products of all values, of complex ones of both parts: 0-d, float64."""
    one, other = (as_real(t.to_dense() if t.is_sparse else t) for t in (first, second))
    return (one.double() * other).sum()


def clip(parameters: Sequence[nn.Parameter], most: float) -> None:
    """Scales the gradients of `parameters` so that their norm is at most `most`, like PyTorch's `clip_grad_norm_`,
    which refuses sparse ones."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not any(gradient.is_sparse for gradient in gradients):
        nn.utils.clip_grad_norm_(parameters, most)
        return
    factor = (most / (norm(gradients) + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device, gradient.dtype))
