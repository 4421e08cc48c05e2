"""Steps to target of planted studies: the best learning rate, censoring, B_crit and the best batch size."""

import math
import random
from pathlib import Path

import pandas
import pytest
from invented.folders import MISSED, reached, write_run

from batchlab.records import Unknown
from batchlab.report.fits.fits import GroupFits, fits
from batchlab.report.fits.to_target import SizeToTarget, ToTarget
from batchlab.report.tables.groups import Way
from batchlab.report.tables.study import read_study

STEPS_MIN, EXAMPLES_MIN = 50, 2000  # B_crit is 40
A, B = 1e-3, 2e-5  # seconds per step
SIZES = (4, 8, 16, 32, 64, 128, 256, 512)


def only_group(study: Path) -> GroupFits:
    (group,) = fits(read_study(study)).groups
    return group


def sizes_of(group: GroupFits) -> dict[int, SizeToTarget]:
    assert isinstance(group.to_target, ToTarget), group.to_target
    return {size.batch_size: size for size in group.to_target.sizes}


@pytest.fixture(scope="module")
def hyperbola(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seeds of 5% about S(B) = 50 + 2000/B at the learning rate 0.1; 1.5 times that at 0.05 and 0.2."""
    study = tmp_path_factory.mktemp("hyperbola")
    draw = random.Random(0)
    for size in SIZES:
        for seed in range(4):
            for lr in (0.05, 0.1, 0.2):
                curve = STEPS_MIN + EXAMPLES_MIN / size
                steps = round(curve * (1 if lr == 0.1 else 1.5) * math.exp(draw.gauss(0, 0.05)))
                write_run(
                    study,
                    size,
                    seed,
                    lr,
                    target=reached(steps, size, steps * (A + B * size)),
                    steps=5000,
                    examples=5000 * size,
                    final={"speed/seconds_per_step": (A + B * size) * draw.gauss(1, 0.02)},
                )
    return study


def test_the_planted_hyperbola_and_its_critical_batch_are_found(hyperbola: Path) -> None:
    group = only_group(hyperbola)

    assert isinstance(group.to_target, ToTarget)
    critical = group.to_target.critical
    assert critical is not None
    assert (group.rate.way, str(group.rate)) == (Way.TUNED, "tuned over 3 values")
    assert critical.verdict == "estimate"
    assert critical.runs == 32
    for interval, truth in (
        (critical.batch_size, EXAMPLES_MIN / STEPS_MIN),
        (critical.steps_min, STEPS_MIN),
        (critical.examples_min, EXAMPLES_MIN),
    ):
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < truth < interval.high
        assert interval.high < 1.7 * interval.low  # otherwise a huge error bar would pass


def test_the_learning_rate_has_the_least_mean_over_seeds_as_pandas_finds_it(hyperbola: Path) -> None:
    found = sizes_of(only_group(hyperbola))

    rows = pandas.DataFrame([pandas.read_json(path, typ="series") for path in hyperbola.glob("*/record.json")])
    rows["lr"] = [config["lr"] for config in rows["config"]]
    rows["at"] = [target["step"] for target in rows["target"]]
    means = rows.groupby(["batch_size", "lr"])["at"].mean().unstack()
    for size in SIZES:
        one = found[size]
        assert one.lr == means.loc[size].astype(float).idxmin() == 0.1
        assert one.steps is not None
        assert one.examples is not None
        assert one.steps.value == pytest.approx(means.loc[size].min())
        assert one.examples.value == pytest.approx(means.loc[size].min() * size)
        assert (one.rates, one.rates_reached, one.at_edge, one.seeds) == (3, 3, False, 4)
        assert one.steps.n == 4
        chosen = rows[(rows["batch_size"] == size) & (rows["lr"] == 0.1)]
        assert set(one.runs) == set(chosen["run_id"])


def test_the_time_to_target_is_least_where_the_two_fits_say(hyperbola: Path) -> None:
    group = only_group(hyperbola)

    time = group.time_to_target
    assert not isinstance(time, Unknown)
    assert not isinstance(group.seconds_per_step, Unknown)
    truth = math.sqrt(EXAMPLES_MIN / STEPS_MIN * A / B)  # 44.7
    assert time.best is not None
    assert time.best.low is not None
    assert time.best.high is not None
    assert time.best.low < truth < time.best.high < 2 * time.best.low
    assert time.within
    assert time.fastest in (32, 64)
    assert {32, 64} <= {time.fastest, *time.as_fast}
    assert 512 not in time.as_fast
    line = group.seconds_per_step.line
    assert line is not None
    assert line.at_zero.low is not None
    assert line.at_zero.high is not None
    assert line.per_unit.low is not None
    assert line.per_unit.high is not None
    assert line.at_zero.low < A < line.at_zero.high
    assert line.per_unit.low < B < line.per_unit.high
    for size, modelled in time.modelled:
        assert modelled == pytest.approx((STEPS_MIN + EXAMPLES_MIN / size) * (A + B * size), rel=0.1)


def test_a_learning_rate_with_one_unlucky_seed_does_not_enter(tmp_path: Path) -> None:
    for seed, step in enumerate((10, 10, None)):
        write_run(tmp_path, 8, seed, 0.2, target=MISSED if step is None else reached(step, 8))
        write_run(tmp_path, 8, seed, 0.1, target=reached(50, 8))
        write_run(tmp_path, 8, seed, 0.05, target=reached(90, 8))

    one = sizes_of(only_group(tmp_path))[8]

    assert (one.lr, one.rates_reached, one.seeds_reached) == (0.1, 2, 3)
    assert one.steps is not None
    assert one.steps.value == 50
    assert not one.at_edge  # 0.2 was tried beyond it


def test_the_mean_over_seeds_decides_and_not_the_luckiest_run(tmp_path: Path) -> None:
    """The luckiest run of all is at 0.2, the best mean at 0.1, and so at the edge of what was tried."""
    for seed, lucky in enumerate((10, 200)):
        write_run(tmp_path, 8, seed, 0.1, target=reached(50, 8))
        write_run(tmp_path, 8, seed, 0.2, target=reached(lucky, 8))

    one = sizes_of(only_group(tmp_path))[8]

    assert (one.lr, one.at_edge) == (0.1, True)
    assert one.steps is not None
    assert one.steps.value == 50


def test_a_run_that_shared_the_machine_counts_its_steps_and_not_its_seconds(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, 8, seed, target=reached(50, 8, seconds=3.0), shared_machine=seed == 1)
        write_run(tmp_path, 16, seed, target=reached(40, 16, seconds=2.0))

    found = sizes_of(only_group(tmp_path))

    assert found[8].seconds is None
    assert found[8].examples is not None
    assert found[8].examples.n == 2
    assert found[16].seconds is not None
    assert found[16].seconds.value == 2.0


def test_a_learning_rate_that_still_runs_does_not_enter(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, 8, seed, 0.1, target=reached(50, 8))
        done = seed == 0
        write_run(tmp_path, 8, seed, 0.2, target=reached(9, 8), status="completed" if done else "running")

    assert sizes_of(only_group(tmp_path))[8].lr == 0.1


def test_a_size_where_no_learning_rate_qualifies_is_censored_at_its_budget_for_every_seed(tmp_path: Path) -> None:
    for size in (8, 16, 32, 64):
        for seed in range(2):
            for lr in (0.1, 0.2):
                fails = size == 64 and (seed == 1 or lr == 0.2)
                write_run(
                    tmp_path, size, seed, lr, steps=300, target=MISSED if fails else reached(20 + 4000 // size, size)
                )

    group = only_group(tmp_path)

    one = sizes_of(group)[64]
    assert (one.reached, one.lr, one.seeds_reached, one.budget_steps) == (False, 0.1, 1, 300)
    assert one.steps is None is one.seconds
    assert isinstance(group.to_target, ToTarget)
    assert group.to_target.critical is not None
    assert group.to_target.critical.censored == 2  # although one seed reached it


def test_with_one_learning_rate_each_run_counts_with_its_result(tmp_path: Path) -> None:
    for size in (8, 16, 32, 64):
        for seed in range(2):
            fails = size == 64 and seed == 1
            write_run(tmp_path, size, seed, steps=300, target=MISSED if fails else reached(20 + 4000 // size, size))

    group = only_group(tmp_path)

    assert isinstance(group.to_target, ToTarget)
    assert group.to_target.critical is not None
    assert group.to_target.critical.censored == 1


def test_a_run_that_diverged_missed_the_target_and_one_that_did_not_fit_says_nothing(tmp_path: Path) -> None:
    for size in (8, 16, 32):
        write_run(tmp_path, size, target=reached(20, size))
    write_run(tmp_path, 64, target=MISSED, status="diverged", steps=7)
    write_run(tmp_path, 128, target=MISSED, status="oom", steps=0)
    write_run(tmp_path, 256, target=MISSED, status="diverged", steps=0)

    found = sizes_of(only_group(tmp_path))

    assert list(found) == [8, 16, 32, 64]
    assert not found[64].reached


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([None, None], "no finished run had a target"),
        ([reached(5, 8), reached(5, 8) | {"value": 0.2}], "2 different targets"),
        ([reached(0, 8), reached(5, 8)], "before the first step"),
    ],
)
def test_a_missing_result_has_a_reason(tmp_path: Path, targets: list[dict[str, object] | None], reason: str) -> None:
    for size, target in zip((8, 16), targets, strict=True):
        write_run(tmp_path, size, target=target)

    group = only_group(tmp_path)

    assert isinstance(group.to_target, Unknown)
    assert reason in group.to_target.why
    assert group.time_to_target == group.to_target


def test_two_sizes_that_reached_it_are_not_a_curve(tmp_path: Path) -> None:
    for size in (8, 16):
        write_run(tmp_path, size, target=reached(20, size))

    target = only_group(tmp_path).to_target

    assert isinstance(target, ToTarget)
    assert (target.critical, target.why_not) == (
        None,
        "the curve needs 3 batch sizes that reached the target, and 2 did",
    )
