"""The learning-rate tournament on planted studies: best learning rates, slope, edges, regrets."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from invented.folders import MISSED, reached, write_run

from batchlab.records import Unknown
from batchlab.report.fits.fits import fits
from batchlab.report.fits.tournament import EXAMPLES, LOSS, Tournament
from batchlab.report.tables.study import read_study
from batchlab.science.scaling.lr_scaling import PLAIN_RULES

SIZES = (8, 32, 128, 512)
LRS = tuple(0.0125 * 2**i for i in range(11))


def write_cell(study: Path, size: int, lr: float, losses: tuple[float, ...], **fields: Any) -> None:
    for seed, loss in enumerate(losses):
        write_run(study, size, seed, lr, best={"val/loss": {"value": loss, "examples": 99}}, **fields)


def bowl(size: int, lr: float, power: float) -> float:
    """A loss with its minimum at the learning rate 0.1 (size/32)^power, and 0.02 worse at half or twice that."""
    return 0.3 + 0.02 * math.log2(lr / (0.1 * (size / 32) ** power)) ** 2


def the_tournament(study: Path) -> Tournament:
    (group,) = fits(read_study(study)).groups
    assert isinstance(group.tournament, Tournament), group.tournament
    return group.tournament


@pytest.mark.parametrize(("power", "rule"), [(0.0, "none"), (0.5, "sqrt"), (1.0, "linear")])
def test_the_planted_rule_is_the_slope_and_has_no_regret(tmp_path: Path, power: float, rule: str) -> None:
    draw = random.Random(0)
    for size in SIZES:
        for lr in LRS:
            write_cell(tmp_path, size, lr, tuple(bowl(size, lr, power) + draw.gauss(0, 1e-3) for _ in range(3)))

    found = the_tournament(tmp_path)

    assert (found.by, found.reference_batch_size, found.why_no_slope) == (LOSS, 32, "")
    assert found.resolution == pytest.approx(2)
    assert [one.peak_lr for one in found.best] == pytest.approx([0.1 * (size / 32) ** power for size in SIZES])
    assert {one.rates for one in found.best} == {11}
    assert not any(one.at_edge for one in found.best)
    assert found.slope is not None
    assert found.slope.value == pytest.approx(power, abs=1e-9)
    # From learning rates rounded to powers of two, and the spread of log 8, 32, 128, 512 about their mean.
    half = scipy.stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(12) / (math.log(4) * math.sqrt(5))
    assert found.slope.high == pytest.approx(power + half)
    by_rule = {(r.rule, r.batch_size): r for r in found.regrets}
    assert {r.rule for r in found.regrets} == {*PLAIN_RULES} >= {"none", "linear", "sqrt"}
    for size in SIZES:
        for name, p in (("none", 0.0), ("sqrt", 0.5), ("linear", 1.0)):
            one = by_rule[name, size]
            given = 0.1 * (size / 32) ** p
            assert one.asks == pytest.approx(given)
            if 0.0125 * 0.7 < given < LRS[-1] * 1.4:
                assert one.regret is not None
                assert one.peak_lr == pytest.approx(given)
                assert one.regret.value == pytest.approx(bowl(size, given, power) - 0.3, abs=3e-3)
        assert by_rule[rule, size].regret == by_rule[rule, 32].regret  # exactly none


def test_a_regret_is_paired_by_seed(tmp_path: Path) -> None:
    """The seeds differ by 1, their differences between learning rates by 0.01: an unpaired test sees nothing."""
    for size in (32, 64):
        for lr, extra in ((0.05, 0.3), (0.1, 0.0), (0.2, 0.1), (0.4, 0.3)):
            write_cell(tmp_path, size, lr, tuple(seed + extra + 0.01 * seed * (lr == 0.2) for seed in range(3)))

    found = the_tournament(tmp_path)

    (linear,) = [r for r in found.regrets if (r.rule, r.batch_size) == ("linear", 64)]
    assert linear.regret is not None
    oracle = scipy.stats.t.interval(0.95, 2, loc=0.11, scale=0.01 / math.sqrt(3))
    assert (linear.regret.low, linear.regret.high) == pytest.approx(oracle)
    assert [one.as_good for one in found.best] == [(), ()]


def test_learning_rates_not_shown_to_differ_from_the_best_are_named(tmp_path: Path) -> None:
    for size in (32, 64):
        write_cell(tmp_path, size, 0.05, (0.30, 0.34, 0.29))
        write_cell(tmp_path, size, 0.1, (0.30, 0.30, 0.30))
        write_cell(tmp_path, size, 0.2, (0.40, 0.41, 0.42))

    assert [one.as_good for one in the_tournament(tmp_path).best] == [(0.05,), (0.05,)]


def test_a_learning_rate_that_diverged_does_not_enter_and_is_not_an_edge(tmp_path: Path) -> None:
    for size in SIZES:
        write_cell(tmp_path, size, 0.05, (0.5, 0.5))
        write_cell(tmp_path, size, 0.1, (0.3, 0.3))
        write_cell(tmp_path, size, 0.2, (0.1,))
        write_run(tmp_path, size, 1, 0.2, status="diverged", best={"val/loss": {"value": 0.0, "examples": 1}})

    found = the_tournament(tmp_path)

    assert [(one.lr, one.at_edge) for one in found.best] == [(0.1, False)] * 4
    (cell,) = [c for c in found.cells if (c.batch_size, c.lr) == (8, 0.2)]
    assert (cell.enters, cell.result, str(cell.ended)) == (False, None, "1 completed, 1 diverged")
    (linear,) = [r for r in found.regrets if (r.rule, r.batch_size) == ("linear", 128)]
    assert linear.regret is None
    assert linear.why == "the rule gives 0.4, and 0.05 to 0.2 were tried"


def test_a_rule_that_leads_to_divergence_has_infinite_regret(tmp_path: Path) -> None:
    for size in (32, 64):
        write_cell(tmp_path, size, 0.05, (0.5, 0.5))
        write_cell(tmp_path, size, 0.1, (0.3, 0.3))
        write_cell(tmp_path, size, 0.2, (0.3, 0.3), status="diverged")

    (linear,) = [r for r in the_tournament(tmp_path).regrets if (r.rule, r.batch_size) == ("linear", 64)]

    assert linear.regret is not None
    assert linear.regret.value == math.inf
    assert linear.why == "2 diverged"


def test_a_best_learning_rate_at_the_edge_is_not_in_the_slope(tmp_path: Path) -> None:
    for size in SIZES:
        for lr in (0.1, 0.2, 0.4, 0.8):
            write_cell(tmp_path, size, lr, (bowl(size, lr, 1.0),))

    found = the_tournament(tmp_path)

    assert [(one.batch_size, one.lr, one.at_edge) for one in found.best] == [
        (8, 0.1, True),
        (32, 0.1, True),
        (128, 0.4, False),
        (512, 0.8, True),
    ]
    assert (found.slope, found.slope_sizes) == (None, (128,))
    assert found.why_no_slope.startswith(
        "two batch sizes need their best learning rate inside the grid, and 1 of 4 have it"
    )


def test_runs_that_stop_at_the_target_are_judged_by_their_examples(tmp_path: Path) -> None:
    for size in (32, 64):
        for lr, step in ((0.05, 90), (0.1, 40), (0.2, 60), (0.4, None)):
            write_cell(
                tmp_path,
                size,
                lr,
                (0.14 - lr / 10, 0.14),  # by which another one would win
                target=MISSED if step is None else reached(step, size),
                config={"stop_at_target": True},
            )

    found = the_tournament(tmp_path)

    assert found.by == EXAMPLES
    assert [(one.lr, one.result.value) for one in found.best] == [(0.1, 40 * 32), (0.1, 40 * 64)]
    regrets = {(r.rule, r.batch_size): r.regret for r in found.regrets}
    linear = regrets["linear", 64]
    assert linear is not None
    assert linear.value == 20 * 64


def test_the_mean_over_seeds_comes_first(tmp_path: Path) -> None:
    """The luckiest run of all is at 0.2, the best mean at 0.1."""
    for size in (32, 64):
        write_cell(tmp_path, size, 0.05, (0.4, 0.4))
        write_cell(tmp_path, size, 0.1, (0.3, 0.3))
        write_cell(tmp_path, size, 0.2, (0.1, 0.9))

    assert [one.lr for one in the_tournament(tmp_path).best] == [0.1, 0.1]


def test_the_noise_rule_takes_the_scale_that_the_study_measured(tmp_path: Path) -> None:
    for size in (32, 128):
        for lr in (0.05, 0.1, 0.2, 0.4):
            write_cell(tmp_path, size, lr, (bowl(size, lr, 0.5),) * 2)
    run = write_run(tmp_path, 128, 2, 0.1, best={"val/loss": {"value": 0.3, "examples": 1}})
    parts = {"noise/squared_gradient_norm": (2.0, 1.9, 2.1), "noise/gradient_variance": (192.0, 180.0, 204.0)}
    lines = [
        f'{{"seq": {i}, "name": "{name}", "value": {v}, "low": {low}, "high": {high}, "n": 10, '
        f'"step": {at}, "examples": {at * 128}, "train_seconds": 0}}\n'
        for at in (1, 2)
        for i, (name, (v, low, high)) in enumerate(parts.items())
    ]
    (tmp_path / run / "metrics.jsonl").write_text("".join(lines))

    (group,) = fits(read_study(tmp_path)).groups

    assert not isinstance(group.noise_scales, Unknown)
    ((scale,),) = [group.noise_scales]
    assert (scale.run, scale.batch_size, scale.examples.value) == (run, 128, pytest.approx(96))
    assert isinstance(group.tournament, Tournament)
    (noise,) = [r for r in group.tournament.regrets if (r.rule, r.batch_size) == ("noise", 128)]
    assert noise.asks == pytest.approx(0.1 * (1 + 96 / 32) / (1 + 96 / 128))


def test_one_learning_rate_or_one_size_is_not_a_tournament(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        write_cell(tmp_path, 32, lr, (0.3,))
    write_cell(tmp_path, 64, 0.1, (0.3,))

    (group,) = fits(read_study(tmp_path)).groups

    assert isinstance(group.tournament, Unknown)
    assert group.tournament.why.startswith("several learning rates were tried at 1 batch size, and two are needed")


def test_if_every_learning_rate_lost_a_seed_the_one_that_most_seeds_survived_is_shown(tmp_path: Path) -> None:
    for lr, survived in ((0.05, 1), (0.1, 3), (0.2, 2)):
        write_cell(tmp_path, 8, lr, (0.3, 0.2, 0.1)[:survived])
        for seed in range(survived, 4):
            write_run(tmp_path, 8, seed, lr, status="diverged")

    (group,) = fits(read_study(tmp_path)).groups

    assert group.rates == ((8, 0.1),)
