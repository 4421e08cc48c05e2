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
    rates = [learning_rate(at, peak=3.0, warmup=0.0, start=0.0, schedule=schedule) for at in (0.0, 0.25, 0.5, 1.0)]

    assert rates == pytest.approx([3.0, *(3.0 * part for part in AT_A_QUARTER_HALF_AND_END[schedule])], abs=1e-12)


@pytest.mark.parametrize(
    ("start", "at", "rate"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 0.1, 0.2),
        (0.0, 0.15, 0.3),
        (0.1, 0.0, 0.1),
        (0.1, 0.1, 0.25),  # half way from the base rate 0.1 to the scaled rate 0.4
        (0.1, 0.2, 0.4),
        (0.1, 0.6, 0.2),  # half of what the warm-up left is done
        (0.1, 1.0, 0.0),
    ],
)
def test_the_warm_up_is_a_straight_line_and_the_schedule_has_the_rest(start: float, at: float, rate: float) -> None:
    assert learning_rate(at, peak=0.4, warmup=0.2, start=start, schedule="linear") == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_makes_no_jump_where_the_warm_up_ends(schedule: str) -> None:
    before, after = (
        learning_rate(0.3 + side, peak=1.0, warmup=0.3, start=0.0, schedule=schedule) for side in (-1e-9, 1e-9)
    )

    assert before == pytest.approx(after, abs=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_may_be_the_whole_run(schedule: str) -> None:
    rates = [learning_rate(at, peak=2.0, warmup=1.0, start=0.0, schedule=schedule) for at in (0.0, 0.5, 1.0)]

    assert rates == pytest.approx([0.0, 1.0, 2.0])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize("batch_size", [1, 8, 32, 256])
def test_every_batch_size_gets_the_same_mean_rate_at_the_middle_of_its_batches(
    schedule: str, warmup: float, batch_size: int
) -> None:
    budget = 1024
    middles = [(seen + batch_size / 2) / budget for seen in range(0, budget, batch_size)]

    rates = [learning_rate(at, peak=1.0, warmup=warmup, start=0.0, schedule=schedule) for at in middles]

    # The middle of a batch integrates a straight line exactly; a cosine, exactly too, being odd about its middle.
    of_the_curve = warmup * 0.5 + (1 - warmup) * MEAN[schedule]
    assert sum(rates) / len(rates) == pytest.approx(of_the_curve, abs=1e-12)
