"""From effects to verdicts on the claims of a study."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtr, stdtrit

from batchlab.science.statistics.uncertainty import Interval

K = TypeVar("K", bound=Hashable)
MOST_SEEDS = 1000  # nobody runs more for one claim


class Verdict(StrEnum):
    """What a study says about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    MIXED = "mixed"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Effect:
    """The effect of one comparison in the claim's direction: positive supports the claim."""

    interval: Interval  # 95%, over seeds; the ends are None with too few seeds
    margin: float  # the smallest effect that matters, 0 or more, in the effect's unit
    p: float | None  # two-sided, of no effect; None with too few seeds


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict within its study."""

    verdict: Verdict
    each: tuple[Verdict, ...]  # of its comparisons, in their order
    p: float | None  # the smallest of its comparisons, corrected for their number and for the family's
    family: int  # number of claims tested in the study, including this one


def judge(effect: Effect, *, p: float | None = None, level: float = 0.05) -> Verdict:
    """The verdict of one comparison; `p` is the corrected p value if it is one of several tests.

    Supported: the interval excludes 0 in the claim's direction, and the estimate is an effect that matters.
    Contradicted: it excludes 0 in the other direction, or lies inside the margin, so that the effect does not matter.
    Excluding 0 counts only if `p` is at most `level`: the correction is in p, and the interval is always 95%.
    """
    low, high, margin = effect.interval.low, effect.interval.high, effect.margin
    p = effect.p if p is None else p
    if low is None or high is None or math.isnan(effect.interval.value):
        return Verdict.INCONCLUSIVE
    if max(-low, high) < margin or low == high == 0:
        return Verdict.CONTRADICTED
    if p is None or p > level:
        return Verdict.INCONCLUSIVE
    if low > 0 and effect.interval.value >= margin:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if high < 0 else Verdict.INCONCLUSIVE


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict from a claim's fair comparisons: mixed if they disagree; inconclusive ones do not count."""
    sides = set(verdicts) - {Verdict.INCONCLUSIVE, Verdict.NOT_TESTED}
    if not sides:
        return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Verdict.NOT_TESTED
    return sides.pop() if len(sides) == 1 else Verdict.MIXED


def judge_study(effects: Mapping[str, Sequence[Effect]], *, level: float = 0.05) -> dict[str, Judgement]:
    """The verdicts of a study's claims, each with its fair comparisons: Holm over the claims tested.

    A claim's p is the smallest of its comparisons, corrected by Holm for their number. So a claim without any effect is
    supported, or contradicted by an effect in the other direction, in at most `level` of studies, however many claims
    there are. Whether an effect lies inside the margin depends only on its 95% interval.
    """
    within = {claim: holm(dict(enumerate(effect.p for effect in these))) for claim, these in effects.items()}
    claims = holm({claim: min((p for p in ps.values() if p is not None), default=None) for claim, ps in within.items()})
    family = sum(p is not None for p in claims.values())
    judged = {}
    for claim, these in effects.items():
        gate = claims[claim]
        each = []
        for at, effect in enumerate(these):
            p = within[claim][at]
            each.append(judge(effect, p=None if p is None or gate is None else max(p, gate), level=level))
        judged[claim] = Judgement(together(each), tuple(each), gate, family)
    return judged


def holm(p_values: Mapping[K, float | None]) -> dict[K, float | None]:
    """p values corrected for their number (Holm 1979, Scand. J. Stat. 6, 65-70); None is not a test and remains None.

    At most 5% of families have a value of 0.05 or less by chance, whichever hypotheses are true and however dependent.
    """
    tested = sorted(((key, p) for key, p in p_values.items() if p is not None), key=lambda pair: pair[1])
    adjusted: dict[K, float | None] = dict.fromkeys(p_values)
    least = 0.0
    for rank, (key, p) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * p))
        adjusted[key] = least
    return adjusted


def seeds_needed(effect: Effect, power: float = 0.8, *, level: float = 0.05) -> int | None:
    """Seeds with which a study decides in this effect's direction with probability `power`, if the estimate is true.

    Decided: supported if the estimate matters, otherwise contradicted. `level` is 0.05 over the family's size if the
    claim is one of several. None with one seed, or if 1,000 are not enough. It is a rough estimate: from three seeds
    the standard deviation is known to a factor of 0.5 to 6.
    """
    low, high, n = effect.interval.low, effect.interval.high, effect.interval.n
    if low is None or high is None or not math.isfinite(high - low):
        return None
    if low == high or n < 2:
        return n
    sd = (high - low) / 2 * math.sqrt(n) / float(stdtrit(n - 1, 0.975))
    most = 2
    while _decides(effect, sd, most, level) < power:
        if most >= MOST_SEEDS:
            return None
        most = min(2 * most, MOST_SEEDS)
    least = max(2, most // 2)
    while least < most:
        middle = (least + most) // 2
        if _decides(effect, sd, middle, level) < power:
            least = middle + 1
        else:
            most = middle
    return most


def _decides(effect: Effect, sd: float, n: int, level: float) -> float:
    """The probability that n seeds decide, averaged over the standard deviations that they may show.

    Without a margin it is the tail of the noncentral t, which cannot include a margin.
    """
    shown = sd * np.sqrt(chdtri(n - 1, (np.arange(512) + 0.5) / 512) / (n - 1) / n)  # standard errors, equally likely
    beyond, arm = stdtrit(n - 1, 1 - level / 2) * shown, stdtrit(n - 1, 0.975) * shown

    def below(mean: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndtr((mean - effect.interval.value) * math.sqrt(n) / sd))

    if effect.interval.value >= effect.margin and effect.interval.value > 0:
        return float(np.mean(1 - below(np.maximum(beyond, effect.margin))))
    inside = effect.margin - arm
    of_no_matter = np.maximum(0, below(inside) - below(np.maximum(-inside, -beyond)))
    return float(np.mean(below(-beyond) + of_no_matter))
