"""Steps to a target as a function of the batch size: S(B) = S_min + E_min / B, fitted to the runs of a study.

McCandlish et al. 2018 (arXiv:1812.06162), whose (S/S_min - 1)(E/E_min - 1) = 1 with E = B S is the same curve.
S_min is the fewest steps, with very large batches; E_min the fewest examples, with very small batches.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.special import expit, log_ndtr, stdtrit

Array = NDArray[np.float64]

BEYOND = 100.0  # B_crit is searched this far outside the batch sizes: there it changes S(B) by at most 1%
GRID = 400  # values of log B_crit at which the misfit is computed
SMALLEST_SPREAD = 1e-3  # of log S: runs exactly on the curve would give all weight to one that did not reach the target


@dataclass(frozen=True)
class StepsToTarget:
    """The runs of one seed to one target, one entry each; the learning rate is tuned (or scaled) at each batch size."""

    batch_sizes: tuple[float, ...]  # examples per step
    steps: tuple[float, ...]  # to the target; all its steps for a run that did not reach it
    reached: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.batch_sizes) == len(self.steps) == len(self.reached):
            raise ValueError("batch_sizes, steps and reached must have an entry for each run")
        if not all(0 < number < math.inf for number in (*self.batch_sizes, *self.steps)):
            raise ValueError("batch sizes and steps must be finite and above 0")

    @property
    def sizes_reached(self) -> tuple[float, ...]:
        """The batch sizes at which the target was reached, each once, in order."""
        return tuple(sorted({b for b, reached in zip(self.batch_sizes, self.reached, strict=True) if reached}))


@dataclass(frozen=True)
class StepsCurve:
    """S(B) = steps_min + examples_min / B; one of the two is 0 if the runs show no bend."""

    steps_min: float
    examples_min: float
    rms: float  # root mean square of the log residuals, of the runs that reached the target

    @property
    def bends(self) -> bool:
        return self.steps_min > 0 and self.examples_min > 0

    @property
    def critical_batch_size(self) -> float:
        """E_min / S_min: there a run takes twice S_min steps and twice E_min examples."""
        return self.examples_min / self.steps_min if self.steps_min > 0 else math.inf

    def steps(self, batch_size: float) -> float:
        return self.steps_min + self.examples_min / batch_size


def fit_steps(runs: StepsToTarget) -> StepsCurve:
    """The least-squares curve on log S: on S itself the runs at small batches would dominate.

    A run that did not reach the target is right-censored: its log S is only known to exceed the log of the steps it
    made, and enters through the likelihood of a normal residual (Tobin 1958). Without such runs only the lucky ones
    would remain at their batch size, and the curve would be too low there.

    ValueError if fewer than three batch sizes reached the target: two parameters need more than two points.
    """
    if len(runs.sizes_reached) < 3:
        raise ValueError(f"the curve needs 3 batch sizes that reached the target, and {len(runs.sizes_reached)} did")
    log_b, log_s, reached = _arrays(runs)
    grid = _grid(log_b)
    if reached.all():
        residuals = log_s - _bend(grid[:, None], log_b)
        u = float(grid[np.argmin(residuals.var(axis=1))])
        level, u = _polished(float((log_s - _bend(u, log_b)).mean()), u, log_b, log_s)
    else:
        level, u = _censored(log_b, log_s, reached, grid)
    rms = math.sqrt(float(np.mean((level + _bend(u, log_b) - log_s)[reached] ** 2)))
    if u <= grid[0]:
        return StepsCurve(math.exp(level), 0.0, rms)
    if u >= grid[-1]:
        return StepsCurve(0.0, math.exp(level + u), rms)
    return StepsCurve(math.exp(level), math.exp(level + u), rms)


def profile_interval(runs: StepsToTarget, curve: StepsCurve) -> tuple[float, float]:
    """95% interval of B_crit from the scatter of the runs about their one `curve`, by profile likelihood.

    0 or infinite at an end that the runs do not bound: a curve that scales perfectly within them has no upper end.
    The scatter includes the misfit of the hyperbola as well as chance; the runs of one seed do not show how B_crit
    varies over seeds. Student's t, with the number of reached runs minus two as degrees of freedom.
    """
    log_b, log_s, reached = _arrays(runs)
    freedom = int(reached.sum()) - 2
    sigma = curve.rms * math.sqrt((freedom + 2) / freedom)
    best = min(max(math.log(curve.critical_batch_size or 1e-300), _grid(log_b)[0]), _grid(log_b)[-1])
    if sigma < 1e-12:
        return curve.critical_batch_size, curve.critical_batch_size
    grid = np.sort(np.append(_grid(log_b), best))
    misfit = _misfit(grid, log_b, log_s, reached, max(sigma, SMALLEST_SPREAD if not reached.all() else 0.0))
    at = int(np.searchsorted(grid, best))
    excess = misfit - misfit[at] - stdtrit(freedom, 0.975) ** 2
    below, above = np.flatnonzero(excess[:at] > 0), np.flatnonzero(excess[at:] > 0)
    low = math.exp(_crossing(grid, excess, int(below[-1]))) if below.size else 0.0
    high = math.exp(_crossing(grid, excess, at + int(above[0]) - 1)) if above.size else math.inf
    return low, high


def _arrays(runs: StepsToTarget) -> tuple[Array, Array, NDArray[np.bool_]]:
    return np.log(runs.batch_sizes), np.log(runs.steps), np.array(runs.reached, dtype=bool)


def _grid(log_b: Array) -> Array:
    return np.linspace(log_b.min() - math.log(BEYOND), log_b.max() + math.log(BEYOND), GRID)


def _bend(u: float | Array, log_b: Array) -> Array:
    """log(1 + B_crit / B) for u = log B_crit: log S(B) without the level log S_min."""
    bend: Array = np.logaddexp(0.0, u - log_b)
    return bend


def _polished(level: float, u: float, log_b: Array, log_s: Array) -> tuple[float, float]:
    """Refines the best point of the grid to rounding."""

    def residuals(p: Array) -> Array:
        left: Array = p[0] + _bend(p[1], log_b) - log_s
        return left

    def slopes(p: Array) -> Array:
        return np.stack([np.ones_like(log_b), expit(p[1] - log_b)], axis=1)

    solved = least_squares(residuals, (level, u), jac=slopes, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15)
    return float(solved.x[0]), float(solved.x[1])


def _censored(log_b: Array, log_s: Array, reached: NDArray[np.bool_], grid: Array) -> tuple[float, float]:
    """The level and log B_crit with the largest likelihood, if some runs are right-censored."""

    def loss(p: Array) -> tuple[float, Array]:
        level, u, log_sigma = p
        sigma = math.exp(log_sigma)
        z = (level + _bend(u, log_b) - log_s) / sigma
        inside, beyond = z[reached], z[~reached]
        by_level = np.where(reached, z, -_hazard(z)) / sigma
        by_sigma = (1 - inside**2).sum() + (_hazard(beyond) * beyond).sum()
        value = 0.5 * (inside**2).sum() + inside.size * log_sigma - log_ndtr(beyond).sum()
        return float(value), np.array([by_level.sum(), (by_level * expit(u - log_b)).sum(), by_sigma])

    bounds = [(None, None), (grid[0], grid[-1]), (math.log(SMALLEST_SPREAD), None)]
    found = []
    for kept in (reached, np.ones_like(reached)):  # without the runs that did not reach it, and as if they just had
        residuals = log_s[kept] - _bend(grid[:, None], log_b[kept])
        at = int(np.argmin(residuals.var(axis=1)))
        start = (residuals[at].mean(), grid[at], math.log(max(0.05, float(residuals[at].std()))))
        found.append(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}))
    best = min(found, key=lambda solved: float(solved.fun))
    return float(best.x[0]), float(best.x[1])


def _misfit(grid: Array, log_b: Array, log_s: Array, reached: NDArray[np.bool_], sigma: float) -> Array:
    """-2 log likelihood at each log B_crit of `grid`, with its best level and a fixed `sigma`."""
    bends = _bend(grid[:, None], log_b)
    level = (log_s - bends)[:, reached].mean(axis=1, keepdims=True)
    for _ in range(30 if not reached.all() else 0):  # Newton's method; convex in the level
        z = (level + bends - log_s) / sigma
        hazard = _hazard(z)
        slope = np.where(reached, z, -hazard).sum(axis=1, keepdims=True)
        change = sigma * slope / np.where(reached, 1.0, hazard * (hazard + z)).sum(axis=1, keepdims=True)
        level = level - change
        if np.abs(change).max() < 1e-9:
            break
    z = (level + bends - log_s) / sigma
    misfit: Array = np.where(reached, z**2, -2 * log_ndtr(z)).sum(axis=1)
    return misfit


def _hazard(z: Array) -> Array:
    """The derivative of log Phi(z); from logarithms, as it would be 0/0 far below 0."""
    hazard: Array = np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - log_ndtr(z))
    return hazard


def _crossing(grid: Array, excess: Array, left: int) -> float:
    """Where `excess` is 0 between grid points `left` and the next, on a straight line."""
    share = excess[left] / (excess[left] - excess[left + 1])
    return float(grid[left] + share * (grid[left + 1] - grid[left]))
