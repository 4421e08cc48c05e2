"""Curvature from Hessian-vector products: the ends of the spectrum and the trace; the matrix is never formed."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from batchlab.science.statistics.uncertainty import t_interval

Product = Callable[[Tensor], Tensor]  # a symmetric matrix H (n, n) times a vector: (n,) -> (n,)


@dataclass(frozen=True)
class Eigenvalue:
    """One end of a spectrum: an eigenvalue of H lies within `residual` of `value`.

    The residual does not prove that it is the outermost one, but the probability that a random start misses it vanishes
    with more products. `value` lies on the inner side: the largest eigenvalue is not smaller, the smallest not larger
    (up to rounding). Its error is of the order residual^2 / distance to the next eigenvalue, usually far less.
    """

    value: float  # x'Hx for the unit vector x that was found; nan if a product was not finite
    residual: float  # |Hx - value x|, from a separate product
    converged: bool  # the residual is within the tolerance


@dataclass(frozen=True)
class Extremes:
    """Both ends of a spectrum, from one Krylov space."""

    smallest: Eigenvalue  # the most negative curvature, if below 0
    largest: Eigenvalue
    products: int  # with H, for both together


def extreme_eigenvalues(
    product: Product, start: Tensor, *, tolerance: float, most_products: int, most_vectors: int = 40
) -> Extremes:
    """The algebraically largest and smallest eigenvalue by Lanczos' method with full re-orthogonalisation.

    `start` (n,) is random (Gaussian) and sets the dtype and device of all vectors. It stops when both residuals are at
    most `tolerance` x the largest |eigenvalue| seen, or after `most_products`; two more give the residuals. At most
    `most_vectors` (at least 3) of n numbers are in memory: when they are full, a quarter at each end is kept and the
    space grown again (thick restart, Wu and Simon 2000, doi:10.1137/S0895479898334605).

    No shift is needed if the largest |eigenvalue| is negative: each end of the space converges to its end.
    """
    most_vectors = min(most_vectors, start.numel())
    basis = start.new_empty(most_vectors, start.numel())
    basis[0] = start / _norm(start)
    projected = np.zeros((most_vectors, most_vectors))  # H in the basis
    filled, products = 1, 0
    while True:
        overlaps, rest = _orthogonalised(product(basis[filled - 1]), basis[:filled])
        products += 1
        length = _norm(rest)
        if not math.isfinite(length):
            lost = Eigenvalue(math.nan, math.inf, converged=False)
            return Extremes(lost, lost, products)
        projected[:filled, filled - 1] = projected[filled - 1, :filled] = overlaps
        values, vectors = np.linalg.eigh(projected[:filled, :filled])
        radius = float(np.abs(values).max())
        residuals = length * np.abs(vectors[-1, [0, -1]])
        # Once the space is exhausted, the rest and so the residuals are 0.
        if residuals.max() <= tolerance * radius or products >= most_products:
            break
        if filled == most_vectors:
            filled = 2 * max(1, most_vectors // 4)
            kept = np.r_[: filled // 2, -(filled // 2) : 0]
            basis[:filled] = torch.from_numpy(vectors[:, kept].T).to(basis) @ basis
            # The next product restores the other entries as overlaps.
            projected[:] = 0.0
            projected[range(filled), range(filled)] = values[kept]
        basis[filled] = rest / length
        filled += 1
    ends = (torch.from_numpy(vectors[:, [0, -1]].T).to(basis) @ basis[:filled]).unbind()
    smallest, largest = (_checked(product, end / _norm(end), tolerance * radius) for end in ends)
    return Extremes(smallest, largest, products + 2)


def _orthogonalised(image: Tensor, basis: Tensor) -> tuple[np.ndarray, Tensor]:
    """The overlaps of `image` (n,) with the rows of `basis` (k, n), shape (k,), and the rest of it."""
    overlaps = basis @ image
    rest = image - overlaps @ basis
    again = basis @ rest  # twice: if the rest is small, rounding errors of the first pass are as large
    return (overlaps + again).double().cpu().numpy(), rest - again @ basis


def _checked(product: Product, vector: Tensor, allowed: float) -> Eigenvalue:
    """A unit vector as an eigenvector: its Rayleigh quotient and residual, from a separate product."""
    image = product(vector)
    value = _dot(vector, image)
    residual = _norm(image - value * vector)
    return Eigenvalue(value, residual, converged=residual <= allowed)


@dataclass(frozen=True)
class Trace:
    """tr(H) with its uncertainty."""

    value: float  # nan if a product was not finite
    standard_error: float  # 0 if every direction was used
    low: float | None  # 95% interval (Student's t over the probes)
    high: float | None
    n: int  # probes


def trace(product: Product, like: Tensor, *, probes: int, generator: torch.Generator) -> Trace:
    """tr(H) as the mean of v'Hv over `probes` (at least 2) vectors v of random signs (Hutchinson 1990).

    Unbiased; the variance of one probe is twice the sum of the squared entries of H off its diagonal. `like` (n,)
    sets size, dtype and device; the signs come from `generator` on the CPU, so that every device has the same ones.
    With `probes` >= n the n unit vectors are used instead, which is exact and costs no more.
    """
    size = like.numel()
    if probes >= size:
        value = sum(float(product(unit)[i]) for i, unit in enumerate(torch.eye(size).to(like)))
        return Trace(value, 0.0, value, value, size)
    forms = []
    for _ in range(probes):  # without synchronising: the next signs are drawn while the device computes the product
        drawn = torch.randint(2, (size,), generator=generator, dtype=torch.int8)  # an eighth of int64 to copy
        signs = 2 * drawn.to(like.device).to(like.dtype) - 1
        forms.append(_products_summed(signs, product(signs)))
    seen = torch.stack(forms).cpu().numpy()
    if not np.isfinite(seen).all():
        return Trace(math.nan, math.inf, None, None, probes)
    found = t_interval(seen.tolist())
    return Trace(found.value, float(seen.std(ddof=1) / math.sqrt(probes)), found.low, found.high, probes)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(_products_summed(a, b))


def _products_summed(a: Tensor, b: Tensor) -> Tensor:
    # float64: it adds up to a hundred million small numbers
    return (a * b).sum(dtype=torch.float64)


def _norm(vector: Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
