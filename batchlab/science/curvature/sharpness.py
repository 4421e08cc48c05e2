"""How much a loss rises near the weights: SAM, ASAM and Keskar's metric, for a loss of the flattened weights.

Each is exact for the given loss, up to rounding, or says which bound it is; none samples.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import Bounds, minimize
from torch import Tensor

Loss = Callable[[Tensor], float]  # of weights (n,)
LossAndGradient = Callable[[Tensor], tuple[float, Tensor]]  # of weights (n,): the loss, and its gradient (n,)

SATURATION = 100.0  # see `keskar`


def sam(loss: Loss, weights: Tensor, gradient: Tensor, *, rho: float) -> float:
    """L(w + rho g/|g|) - L(w): the rise over a step of length `rho` uphill (Foret et al. 2021, arXiv:2010.01412).

    `weights` and their `gradient` are (n,). It depends on the scale of the weights: rescaling the layers of a ReLU
    network changes it but not the network (Dinh et al. 2017, arXiv:1703.04933). nan if the gradient is 0.
    """
    return asam(loss, weights, gradient, scale=torch.ones_like(weights), rho=rho)


def asam(loss: Loss, weights: Tensor, gradient: Tensor, *, scale: Tensor, rho: float) -> float:
    """L(w + rho T^2 g/|T g|) - L(w), T = diag(`scale`): the adaptive sharpness of Kwon et al. 2021 (arXiv:2102.11600).

    The step is the steepest one with |T^-1 e| = `rho`. With `scale` = |w|, elementwise, it does not change if the
    layers of a ReLU network are rescaled; with |w| + 0.01, as the paper trains, hardly. nan if T g is 0.
    """
    length = float(torch.linalg.vector_norm(scale * gradient, dtype=torch.float64))
    if length == 0:
        return math.nan
    return loss(weights + (rho / length) * scale.square() * gradient) - loss(weights)


def keskar(
    loss: LossAndGradient, weights: Tensor, *, epsilon: float, iterations: int, generator: torch.Generator
) -> float:
    """100 (max f(x + z) - f(x)) / (1 + f(x)) over the box |z_i| <= `epsilon` (|x_i| + 1), or a lower bound of it.

    Metric 2.1 of Keskar et al. 2017 (arXiv:1609.04836) in the whole space, there with `epsilon` 1e-3 and 10
    `iterations` of L-BFGS-B. Here it is the best point of two such ascents: one from the `weights` (n,) and, since they
    may be a stationary point, one from a random point in the box. The host needs about 300 bytes per weight.
    """
    box = epsilon * (weights.abs() + 1)
    before, _ = loss(weights)
    best = before

    def rise(z: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss at z in [-1, 1]^n, the box, and its gradient."""
        nonlocal best
        value, gradient = loss(weights + box * torch.from_numpy(z).to(box))
        best = max(best, value)
        return value, (gradient * box).double().cpu().numpy()

    drawn = 2 * torch.rand(len(weights), generator=generator, dtype=torch.float64) - 1
    for start in (np.zeros(len(weights)), drawn.numpy()):
        _, slope = rise(start)
        steepness = float(np.abs(slope).mean())
        if not 0 < steepness < math.inf:
            continue
        # L-BFGS-B takes its first step as if the curvature were 1. The slope over a box of 1e-3 is so small that ten
        # iterations would end near the start; with this scale most weights reach the boundary at once.
        scale = SATURATION / steepness

        def fall(z: np.ndarray, scale: float = scale) -> tuple[float, np.ndarray]:
            value, slope = rise(z)
            return -scale * value, -scale * slope

        minimize(
            fall,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(-1.0, 1.0),
            options={"maxiter": iterations, "maxfun": 3 * iterations, "maxcor": 5, "ftol": 0.0, "gtol": 0.0},
        )
    return 100 * (best - before) / (1 + before)
