"""How the learning rate follows the batch size: the rules the literature proposes, side by side.

Each rule takes `ratio`, batch size over reference batch size, and the values at the reference; some also take the
noise scale over the reference batch size. At a ratio of 1 no rule changes anything.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from batchlab.errors import BadRequest


@dataclass(frozen=True)
class Scaled:
    """A learning rate with the constants of Adam that some rules also change."""

    lr: float
    betas: tuple[float, ...] | None = None  # None: the optimizer has none
    eps: float | None = None


def none(ratio: float, base: Scaled) -> Scaled:
    """The learning rate stays the same, as when only the batch size is changed."""
    del ratio
    return base


def linear(ratio: float, base: Scaled) -> Scaled:
    """The rule for SGD: learning rate proportional to batch size (Goyal et al. 2017, arXiv:1706.02677)."""
    return replace(base, lr=base.lr * ratio)


def square_root(ratio: float, base: Scaled) -> Scaled:
    """Keeps the covariance of an SGD update (Krizhevsky 2014, arXiv:1404.5997; Hoffer et al. 2017)."""
    return replace(base, lr=base.lr * math.sqrt(ratio))


def adam_square_root(ratio: float, base: Scaled) -> Scaled:
    """The rule for Adam (Malladi et al. 2022, arXiv:2205.10287): it changes learning rate, betas and eps.

    The paper sets beta to 1 - ratio (1 - beta), which is negative for beta = 0.9 beyond a ratio of 10;
    beta ** ratio agrees with it to first order and is never negative.
    """
    beta1, beta2 = _betas("adam_sqrt", base)
    if base.eps is None:
        raise BadRequest("lr_scaling=adam_sqrt also changes eps, and this optimizer has none: use optimizer=adamw")
    return Scaled(lr=base.lr * math.sqrt(ratio), betas=(beta1**ratio, beta2**ratio), eps=base.eps / math.sqrt(ratio))


def adam_half_life(ratio: float, base: Scaled) -> Scaled:
    """Keeps the half-life of Adam's second moment in examples (Marek et al. 2025, arXiv:2507.07101)."""
    beta1, beta2 = _betas("adam_half_life", base)
    return replace(base, betas=(beta1, beta2**ratio))


def noise(ratio: float, base: Scaled, noise_ratio: float) -> Scaled:
    """Linear below the noise scale, flat above it: lr (1 + Bn/B0) / (1 + Bn/B) (McCandlish et al. 2018,
    arXiv:1812.06162, section 2.2); the gain of AdaScale (Johnson et al. 2020, arXiv:2007.05105) is the same number.

    The learning rate that lowers a quadratic loss most is proportional to 1 / (1 + Bn/B) if its curvature is the same
    in all directions; Bn = tr(Sigma) / |G|^2, `noise_ratio` is Bn/B0.
    """
    return replace(base, lr=base.lr * ratio * ((1 + noise_ratio) / (ratio + noise_ratio)))


def surge(ratio: float, base: Scaled, noise_ratio: float) -> Scaled:
    """Adam's best learning rate rises as the square root, peaks at the noise scale and falls beyond it: proportional to
    1 / (sqrt(Bn/B) + sqrt(B/Bn)) (Li et al. 2024, arXiv:2405.14578).

    Bn is the noise scale of Adam's own update, or the critical batch size E_min/S_min, not tr(Sigma) / |G|^2;
    `noise_ratio` is Bn/B0. For updates that depend only on the gradient's sign, as Adam's nearly do.
    """
    if base.betas is None:
        raise BadRequest(
            "lr_scaling=surge is a rule for Adam, and this optimizer has no betas: use optimizer=adamw, or "
            "lr_scaling=noise"
        )
    # The formula above as one fraction: its square roots would overflow for a very small Bn.
    return replace(base, lr=base.lr * math.sqrt(ratio) * ((1 + noise_ratio) / (ratio + noise_ratio)))


def _betas(rule: str, base: Scaled) -> tuple[float, float]:
    if base.betas is None:
        raise BadRequest(
            f"lr_scaling={rule} changes betas, and this optimizer has none: use optimizer=adamw, or lr_scaling=linear"
        )
    if len(base.betas) != 2 or not all(0 <= beta < 1 for beta in base.betas):
        raise BadRequest(
            f"lr_scaling={rule} changes Adam's two betas, which must be at least 0 and below 1, not "
            f"[{', '.join(map(str, base.betas))}]: give two, such as optimizer.betas=[0.9,0.999]"
        )
    return base.betas[0], base.betas[1]


@dataclass(frozen=True)
class NoiseRule:
    """A rule that follows a noise scale."""

    scale: Callable[[float, Scaled, float], Scaled]  # the last number is the noise scale over the reference batch size
    of_adam: bool = False  # whether it is the noise scale of Adam's own update or tr(Sigma) / |G|^2


# A rule is one row here; the option, its help and documentation, `lr-table` and the report read these tables.
PLAIN_RULES: dict[str, Callable[[float, Scaled], Scaled]] = {  # these change only the learning rate
    "none": none,
    "linear": linear,
    "sqrt": square_root,
}
ADAM_RULES: dict[str, Callable[[float, Scaled], Scaled]] = {  # these also change betas or eps
    "adam_sqrt": adam_square_root,
    "adam_half_life": adam_half_life,
}
NOISE_RULES: dict[str, NoiseRule] = {"noise": NoiseRule(noise), "surge": NoiseRule(surge, of_adam=True)}
RULE_NAMES = (*PLAIN_RULES, *ADAM_RULES, *NOISE_RULES)


def scaled(
    rule: str, base: Scaled, *, batch_size: int, reference_batch_size: int, noise_scale: float | None = None
) -> Scaled:
    """`base`, the values at the reference batch size, scaled by `rule`; `noise_scale` is in examples."""
    check_noise_scale(rule, noise_scale)
    ratio = batch_size / reference_batch_size
    if noise_scale is None:
        return (PLAIN_RULES | ADAM_RULES)[rule](ratio, base)
    return NOISE_RULES[rule].scale(ratio, base, noise_scale / reference_batch_size)


def check_noise_scale(rule: str, noise_scale: float | str | None) -> None:
    """BadRequest if a rule lacks the noise scale that it needs, or has one that it does not use."""
    if rule in NOISE_RULES and noise_scale is None:
        raise BadRequest(
            f"lr_scaling={rule} needs noise_scale=...: a number of examples, such as noise_scale=120, or a run that "
            "measured it, noise_scale=runs/STUDY/RUN (`batchlab train instruments=noise` makes one)"
        )
    if rule not in NOISE_RULES and noise_scale is not None:
        raise BadRequest(
            f"lr_scaling={rule} does not use noise_scale={str(noise_scale).removesuffix('.0')}: leave it out, or use "
            f"lr_scaling={' or '.join(NOISE_RULES)}; to compare rules with and without it, run two sweeps "
            "with one study=NAME"
        )
