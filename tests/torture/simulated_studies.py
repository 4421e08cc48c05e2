"""Studies whose truth is known, judged: how often is a claim supported that is not so, or missed that is?"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from batchlab.science.statistics.effects import paired_effect, slopes
from batchlab.science.statistics.pairing import Outcome, paired
from batchlab.science.statistics.verdicts import Effect, Verdict, judge_study

CLAIMS = 22
SIZES = (8, 32, 128, 512)
Rng = np.random.Generator
Draw = Callable[[Rng, tuple[int, ...]], np.ndarray]


def normal(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(size=shape)


def skewed(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    return rng.lognormal(0, 1.5, size=shape)


def heavy_tailed(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_t(2, size=shape)


def rounded(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """So coarsely that most runs come to one of three numbers: steps to target, with few evaluations."""
    return np.round(rng.normal(rng.uniform(), size=shape))


def related(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """All claims are about nearly the same numbers."""
    return 0.9 * rng.normal(size=shape[1:]) + 0.44 * rng.normal(size=shape)


@dataclass(frozen=True)
class Circumstances:
    """What the studies are like; their batch sizes do nothing, except where an effect is planted in one claim."""

    name: str
    seeds: int = 8
    draw: Draw = normal
    comparisons: int = 1  # fair ones, of each claim
    lost: float = 0.0  # share of runs that failed
    diverged: float = 0.0  # share that diverged, and counts as a bad value
    planted: float | None = None  # the effect of claim 0, in standard deviations of its paired difference


CASES = (
    Circumstances("8 seeds"),
    Circumstances("2 seeds", seeds=2),
    Circumstances("3 seeds", seeds=3),
    Circumstances("5 seeds, three comparisons each", seeds=5, comparisons=3),
    Circumstances("25 seeds, bootstrapped intervals", seeds=25),
    Circumstances("5 seeds, skewed", seeds=5, draw=skewed),
    Circumstances("heavy tails", draw=heavy_tailed),
    Circumstances("2 seeds, rounded", seeds=2, draw=rounded),
    Circumstances("3 seeds, rounded", seeds=3, draw=rounded),
    Circumstances("8 seeds, rounded", draw=rounded),
    Circumstances("claims that go together", draw=related),
    Circumstances("a tenth of the runs lost", lost=0.1),
    Circumstances("a tenth of the runs diverged", diverged=0.1),
    Circumstances("8 seeds, an effect of 3 standard deviations in one claim", planted=3.0),
)


@dataclass(frozen=True)
class Found:
    """In what share of the studies a claim without an effect, any of them, was supported, and contradicted by an
    effect the other way; and the planted claim supported."""

    these: Circumstances
    studies: int
    supported: float
    other_way: float
    planted: float

    def __str__(self) -> str:
        if self.these.planted is not None:
            result = f"the planted claim supported in {self.planted:.1%}, another in {self.supported:.1%}"
        else:
            result = f"a claim supported in {self.supported:.1%}, contradicted the other way in {self.other_way:.1%}"
        return f"{self.these.name}: {result} of {self.studies:,} studies of {CLAIMS} claims"

    @property
    def wrong(self) -> bool:
        """Above 5%, or below 90%; of few studies, only what true shares of 2.5% and 98% do not give by chance."""
        most = max(0.05, binom.ppf(0.9999, self.studies, 0.025) / self.studies)
        least = min(0.9, binom.ppf(0.0001, self.studies, 0.98) / self.studies)
        missed = self.these.planted is not None and self.planted < least
        return missed or max(self.supported, self.other_way) > most


def found(these: Circumstances, studies: int, seed: int = 0) -> Found:
    rng = np.random.default_rng([seed, *these.name.encode()])
    counts = np.zeros(3)
    for _ in range(studies):
        verdicts = [judgement.verdict for judgement in judge_study(_study(rng, these)).values()]
        others = verdicts if these.planted is None else verdicts[1:]
        counts += (
            Verdict.SUPPORTED in others,
            Verdict.CONTRADICTED in others,
            verdicts[0] is Verdict.SUPPORTED,
        )
    return Found(these, studies, *(counts / studies))


def _study(rng: Rng, these: Circumstances) -> dict[str, list[Effect]]:
    """Claims by turns of a trend over all batch sizes and of the largest less the smallest; no margin helps them."""
    shape = (CLAIMS * these.comparisons, these.seeds, len(SIZES))
    values = these.draw(rng, shape) + 5 * rng.normal(size=shape[:2])[..., None]  # a seed is good or bad at every size
    if these.planted is not None:
        values[0, :, -1] += these.planted * np.sqrt(2)
    ends = rng.uniform(size=shape)
    status = np.where(ends < these.lost, "failed", np.where(ends > 1 - these.diverged, "diverged", "completed"))
    effects = [_effect(at % 2 == 1, *one) for at, one in enumerate(zip(values, status, strict=True))]
    return {f"claim {at}": effects[at::CLAIMS] for at in range(CLAIMS)}


def _effect(is_trend: bool, values: np.ndarray, status: np.ndarray) -> Effect:
    table = paired(
        (
            Outcome(size, seed, status[seed, at], values[seed, at])
            for at, size in enumerate(SIZES)
            for seed in range(len(values))
        ),
        diverged_as=20.0,
    )
    if is_trend:
        return paired_effect(slopes(table.values, table.batch_sizes))
    return paired_effect(table.values[:, -1] - table.values[:, 0])
