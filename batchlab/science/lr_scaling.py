"""How the learning rate follows the batch size: the rules the literature proposes, side by side.

Each rule takes `ratio`, batch size over reference batch size, and what holds at the reference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from batchlab.errors import BadRequest


@dataclass(frozen=True)
class Scaled:
    """A learning rate with the constants of Adam that some rules move along with it."""

    lr: float
    betas: tuple[float, float] | None = None  # None: the optimizer has none
    eps: float | None = None


def none(ratio: float, base: Scaled) -> Scaled:
    """The rate stays: what happens to whoever changes the batch size and nothing else."""
    del ratio
    return base


def linear(ratio: float, base: Scaled) -> Scaled:
    """The rule for SGD: rate proportional to batch size (Goyal et al. 2017, arXiv:1706.02677)."""
    return replace(base, lr=base.lr * ratio)


def square_root(ratio: float, base: Scaled) -> Scaled:
    """Keeps the covariance of an SGD update (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al. 2017)."""
    return replace(base, lr=base.lr * math.sqrt(ratio))


def adam_square_root(ratio: float, base: Scaled) -> Scaled:
    """The rule for Adam (Malladi et al. 2022, arXiv:2205.10287): rate, betas and eps move together.

    The paper moves beta to 1 - ratio (1 - beta), which is negative for beta = 0.9 beyond a ratio of 10;
    beta ** ratio agrees with it to first order and never is.
    """
    beta1, beta2 = _betas("adam_sqrt", base)
    if base.eps is None:
        raise BadRequest("lr_scaling=adam_sqrt also moves eps, and this optimizer has none: use optimizer=adamw")
    return Scaled(lr=base.lr * math.sqrt(ratio), betas=(beta1**ratio, beta2**ratio), eps=base.eps / math.sqrt(ratio))


def adam_half_life(ratio: float, base: Scaled) -> Scaled:
    """Keeps the half-life of Adam's second moment in examples (Marek et al. 2025, arXiv:2507.07101)."""
    beta1, beta2 = _betas("adam_half_life", base)
    return replace(base, betas=(beta1, beta2**ratio))


def _betas(rule: str, base: Scaled) -> tuple[float, float]:
    if base.betas is None:
        raise BadRequest(f"lr_scaling={rule} moves betas, and this optimizer has none: use optimizer=adamw, or linear")
    return base.betas


Rule = Callable[[float, Scaled], Scaled]
RULES: dict[str, Rule] = {
    "none": none,
    "linear": linear,
    "sqrt": square_root,
    "adam_sqrt": adam_square_root,
    "adam_half_life": adam_half_life,
}
