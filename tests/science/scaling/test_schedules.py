"""The learning rate over a run, against sums done by hand and the means of the curves."""

import math

import pytest

from batchlab.science.scaling.schedules import SCHEDULES, learning_rate

AT_A_QUARTER_HALF_AND_END = {
    "constant": (1.0, 1.0, 1.0),
    "linear": (0.75, 0.5, 0.0),
    "cosine": ((2 + math.sqrt(2)) / 4, 0.5, 0.0),
}
MEAN = {"constant": 1.0, "linear": 0.5, "cosine": 0.5}  # of the curve, by integration


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_goes_through_the_points_it_should(schedule: str) -> None:
    lrs = [learning_rate(at, peak=3.0, warmup=0.0, start=0.0, schedule=schedule) for at in (0.0, 0.25, 0.5, 1.0)]

    assert lrs == pytest.approx([3.0, *(3.0 * part for part in AT_A_QUARTER_HALF_AND_END[schedule])], abs=1e-12)


@pytest.mark.parametrize(
    ("start", "at", "expected"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 0.1, 0.2),
        (0.0, 0.15, 0.3),
        (0.1, 0.0, 0.1),
        (0.1, 0.1, 0.25),  # half way from the base learning rate 0.1 to the scaled one 0.4
        (0.1, 0.2, 0.4),
        (0.1, 0.6, 0.2),  # half of the budget after the warm-up is used
        (0.1, 1.0, 0.0),
    ],
)
def test_the_warm_up_is_a_straight_line_and_the_schedule_follows(start: float, at: float, expected: float) -> None:
    assert learning_rate(at, peak=0.4, warmup=0.2, start=start, schedule="linear") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_is_continuous_at_the_end_of_the_warm_up(schedule: str) -> None:
    before, after = (
        learning_rate(0.3 + side, peak=1.0, warmup=0.3, start=0.0, schedule=schedule) for side in (-1e-9, 1e-9)
    )

    assert before == pytest.approx(after, abs=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_may_be_the_whole_run(schedule: str) -> None:
    lrs = [learning_rate(at, peak=2.0, warmup=1.0, start=0.0, schedule=schedule) for at in (0.0, 0.5, 1.0)]

    assert lrs == pytest.approx([0.0, 1.0, 2.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize("batch_size", [1, 8, 32, 256])
def test_every_batch_size_gets_the_same_mean_learning_rate_at_the_middle_of_its_batches(
    schedule: str, warmup: float, batch_size: int
) -> None:
    budget = 1024
    middles = [(seen + batch_size / 2) / budget for seen in range(0, budget, batch_size)]

    lrs = [learning_rate(at, peak=1.0, warmup=warmup, start=0.0, schedule=schedule) for at in middles]

    # The midpoint rule integrates a straight line exactly, and a cosine too, as it is odd about its middle.
    of_the_curve = warmup * 0.5 + (1 - warmup) * MEAN[schedule]
    assert sum(lrs) / len(lrs) == pytest.approx(of_the_curve, abs=1e-12)
