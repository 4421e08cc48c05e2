"""Verdicts, against the sentences of SCIENCE section 7, Holm by hand, and simulated studies of known power."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from batchlab.science.statistics.effects import counted, paired_effect
from batchlab.science.statistics.uncertainty import Interval
from batchlab.science.statistics.verdicts import (
    Effect,
    Verdict,
    holm,
    judge,
    judge_study,
    seeds_needed,
    together,
)

SUPPORTED, CONTRADICTED, MIXED, INCONCLUSIVE, NOT_TESTED = Verdict


def effect(low: float, high: float, margin: float = 1.0, p: float | None = 0.01) -> Effect:
    return Effect(Interval((low + high) / 2, low, high, 8), margin, p)


FOR, AGAINST, NOTHING, NO_MATTER = effect(2, 4), effect(-4, -2), effect(-2, 3, p=0.6), effect(-0.5, 0.6, p=0.8)


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict", "why"),
    [
        (0.5, 3.0, 0.01, SUPPORTED, "beyond 0 and the estimate beyond the margin"),
        (0.2, 1.6, 0.01, INCONCLUSIVE, "beyond 0, the estimate inside the margin, and the interval not wholly"),
        (0.2, 0.9, 0.01, CONTRADICTED, "surely above 0, and wholly inside the margin"),
        (-0.9, 0.9, 0.99, CONTRADICTED, "wholly inside the margin"),
        (-0.9, 1.0, 0.8, INCONCLUSIVE, "an effect that just matters is in the interval"),
        (-3.0, -0.1, 0.01, CONTRADICTED, "beyond 0 the other way"),
        (-0.1, 5.0, 0.06, INCONCLUSIVE, "0 is in the interval"),
        (-3.0, 0.1, 0.06, INCONCLUSIVE, "0 is in the interval"),
        (0.5, 3.0, 0.06, INCONCLUSIVE, "not significant after the correction for many tests"),
        (-3.0, -0.5, 0.06, INCONCLUSIVE, "nor in the other direction"),
        (-0.1, 5.0, 0.01, INCONCLUSIVE, "0 is in the interval, a bootstrap's, whatever p says"),
        (0.5, 3.0, None, INCONCLUSIVE, "no p"),
        (-math.inf, math.inf, 1.0, INCONCLUSIVE, "not resolved"),
    ],
)
def test_one_comparison_is_judged_by_its_interval_its_margin_and_its_p(low, high, p, verdict, why):
    interval = Interval((low + high) / 2 if math.isfinite(low) else 5.0, low, high, 8)

    assert judge(Effect(interval, 1.0, p)) is verdict, why
    assert judge(Effect(interval, 1.0, 0.0), p=p if p is not None else 1.0) is verdict, why


def test_without_a_margin_only_an_effect_of_exactly_nothing_is_no_effect():
    assert judge(effect(-1e-9, 1e-9, margin=0.0, p=0.9)) is INCONCLUSIVE
    assert judge(effect(0.0, 0.0, margin=0.0, p=1.0)) is CONTRADICTED


def test_one_seed_is_inconclusive_whatever_it_shows():
    assert judge(Effect(Interval(1e6, None, None, 1), 1.0, None)) is INCONCLUSIVE
    assert judge(Effect(Interval(math.nan, None, None, 0), 1.0, None)) is INCONCLUSIVE


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        ([], NOT_TESTED),
        ([FOR], SUPPORTED),
        ([FOR, FOR], SUPPORTED),
        ([FOR, AGAINST], MIXED),
        ([FOR, NO_MATTER], MIXED),
        ([FOR, NOTHING], SUPPORTED),
        ([NOTHING, AGAINST, NO_MATTER], CONTRADICTED),
        ([NOTHING, NOTHING], INCONCLUSIVE),
        ([NOTHING, AGAINST, FOR], MIXED),
    ],
)
def test_fair_comparisons_that_disagree_are_mixed_and_one_that_says_nothing_takes_no_side(effects, verdict):
    for order in itertools.permutations(effects):
        assert judge_study({"": order})[""].verdict is verdict


def test_claims_that_were_not_tested_stay_so():
    assert together([NOT_TESTED, NOT_TESTED]) is NOT_TESTED
    assert together([NOT_TESTED, INCONCLUSIVE]) is INCONCLUSIVE
    assert together([NOT_TESTED, SUPPORTED]) is SUPPORTED


def test_holm_by_hand():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "e": None})

    # 0.005 x 4; 0.01 x 3; 0.03 x 2; 0.04 x 1 = 0.04, but no less than the one before.
    assert adjusted == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06, "e": None})
    assert list(adjusted) == ["a", "b", "c", "d", "e"]
    assert holm({"a": 0.7, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_holm_rejects_what_stepping_down_by_hand_rejects():
    rng = np.random.default_rng(2)
    for _ in range(50):
        p_values = dict(enumerate(rng.uniform(0, 0.08, size=9) ** 1.5))
        rejected = set()
        for step, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
            if p_values[key] > 0.05 / (9 - step):
                break
            rejected.add(key)

        assert {key for key, p in holm(p_values).items() if p <= 0.05} == rejected


def test_a_claim_alone_is_supported_and_among_twenty_two_is_not():
    strong, weak = effect(2, 4, p=1e-5), effect(0.5, 3.0, p=0.01)
    study = {"strong": [strong], "weak": [weak]} | {f"other {at}": [NOTHING] for at in range(20)}

    judged = judge_study(study | {"one seed": [Effect(Interval(3.0, None, None, 1), 1.0, None)], "never": []})

    assert judge_study({"weak": [weak]})["weak"].verdict is SUPPORTED
    assert judged["strong"].verdict is SUPPORTED
    assert judged["strong"].p == pytest.approx(22e-5)
    assert (judged["weak"].verdict, judged["weak"].p) == (INCONCLUSIVE, pytest.approx(0.21))
    assert judged["one seed"].verdict is INCONCLUSIVE
    assert (judged["never"].verdict, judged["never"].each, judged["never"].p) == (NOT_TESTED, (), None)
    assert {judgement.family for judgement in judged.values()} == {22}  # claims without a p are not tests


def test_a_claims_comparisons_are_corrected_for_their_number_too():
    """Three times 0.02 is not evidence, and a weak comparison of a claim that passes is not evidence by itself."""
    weak, other = effect(0.5, 3.0, p=0.02), effect(-3.0, -0.5, p=0.03)

    assert judge_study({"": [weak]})[""].verdict is SUPPORTED
    assert judge_study({"": [weak, NOTHING, NOTHING]})[""].verdict is INCONCLUSIVE
    judgement = judge_study({"claim": [effect(2, 4, p=1e-4), NOTHING, other]})["claim"]
    assert judgement.each == (SUPPORTED, INCONCLUSIVE, INCONCLUSIVE)
    assert judgement.p == pytest.approx(3e-4)


def test_an_effect_inside_the_margin_needs_no_p_value():
    assert judge_study({"a": [NO_MATTER], "b": [NOTHING]})["a"].verdict is CONTRADICTED


def test_counted_facts_are_verdicts_in_any_family_and_cost_the_others_nothing():
    weak = effect(0.5, 3.0, p=0.02)

    judged = judge_study({"counted": [counted(5.0, margin=1.0)], "other": [weak], "third": [effect(-2, 3, p=0.03)]})

    assert judged["counted"].verdict is SUPPORTED
    assert judged["other"].p == pytest.approx(0.04)


def drawn(value: float, sd: float, n: int, margin: float = 0.0) -> Effect:
    """An effect of n seeds that shows exactly this mean and this standard deviation."""
    sample = np.random.default_rng(0).normal(size=n)
    return paired_effect(value + sd * (sample - sample.mean()) / sample.std(ddof=1), margin)


@pytest.mark.parametrize("value", [2.0, -2.0])
@pytest.mark.parametrize(("sd", "level"), [(1.0, 0.05), (4.0, 0.05), (9.0, 0.05), (1.0, 0.05 / 22), (5.0, 0.05 / 22)])
def test_seeds_needed_are_the_noncentral_ts(value, sd, level):
    needed = seeds_needed(drawn(value, sd, n=5), power=0.8, level=level)

    def power(n: int) -> float:
        return float(stats.nct.sf(stats.t.isf(level / 2, n - 1), n - 1, abs(value) / sd * math.sqrt(n)))

    assert power(needed) >= 0.8 > power(needed - 1)


@pytest.mark.parametrize(("value", "margin", "verdict"), [(1.0, 0.8, SUPPORTED), (0.3, 0.9, CONTRADICTED)])
def test_so_many_seeds_decide_with_the_requested_power_if_there_is_a_margin(value, margin, verdict):
    needed = seeds_needed(drawn(value, 1.0, n=6, margin=margin), power=0.7)

    def share(n: int) -> float:
        rng = np.random.default_rng(5)
        samples = rng.normal(value, 1.0, size=(40_000, n))
        mean, arm = samples.mean(axis=1), stats.t.isf(0.025, n - 1) * samples.std(axis=1, ddof=1) / math.sqrt(n)
        supported = (mean - arm > 0) & (mean >= margin)
        contradicted = (mean + arm < 0) | (np.maximum(arm - mean, mean + arm) < margin)
        return float((supported if verdict is SUPPORTED else contradicted).mean())

    assert share(needed) >= 0.69
    assert share(needed - 1) < 0.71


def test_the_power_stated_in_science_is_correct():
    """d = 3 among 22: 99% at 8 seeds; d = 2: 77%, so that for 80% one more is needed."""
    assert seeds_needed(drawn(3.0, 1.0, n=8), power=0.98, level=0.05 / 22) == 8
    assert seeds_needed(drawn(2.0, 1.0, n=8), power=0.8, level=0.05 / 22) == 9
    assert seeds_needed(drawn(2.0, 1.0, n=8), power=0.76, level=0.05 / 22) == 8


def test_the_number_of_seeds_is_unknown_from_one_seed_or_if_no_number_is_enough():
    assert seeds_needed(Effect(Interval(3.0, None, None, 1), 1.0, None)) is None
    assert seeds_needed(drawn(1e-3, 1.0, n=5)) is None
    assert seeds_needed(drawn(1.0, 1.0, n=5, margin=1.0)) is None  # half of all studies show less than the margin
    assert seeds_needed(effect(-math.inf, 3.0)) is None
    assert seeds_needed(counted(4.0, margin=1.0)) == 1
    assert seeds_needed(paired_effect([4.0] * 6)) == 6
