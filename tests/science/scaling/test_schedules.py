"""The learning rate over a run, against sums done by hand, the means of the curves, and PyTorch's own schedulers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from batchlab.errors import BadRequest
from batchlab.science.scaling import schedules
from batchlab.science.scaling.schedules import check_options, check_warmup, curve_of

DEFAULTS = {
    "floor": 0.0,
    "milestones": (0.5, 0.75),
    "factor": 0.1,
    "peak_at": 0.3,
    "start_divisor": 25.0,
    "end_divisor": 1e4,
    "decay": 0.2,
}
FALLING = ("constant", "linear", "cosine")  # whose curve is over what the warm-up leaves


def learning_rate(progress: float, *, peak: float, warmup: float, start: float, schedule: str, **options: Any) -> float:
    curve = curve_of(schedule, DEFAULTS | options, warmup)
    return schedules.learning_rate(progress, peak=peak, warmup=warmup, start=start, curve=curve)


AT_A_QUARTER_HALF_AND_END = {
    "constant": (1.0, 1.0, 1.0),
    "linear": (0.75, 0.5, 0.0),
    "cosine": ((2 + math.sqrt(2)) / 4, 0.5, 0.0),
    "step": (1.0, 0.1, 0.01),
    "wsd": (1.0, 1.0, 0.0),
}
MEAN = {"constant": 1.0, "linear": 0.5, "cosine": 0.5}  # of the curve, by integration


@pytest.mark.parametrize("schedule", AT_A_QUARTER_HALF_AND_END)
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


@pytest.mark.parametrize("schedule", [*FALLING, "step", "wsd"])
def test_the_learning_rate_is_continuous_at_the_end_of_the_warm_up(schedule: str) -> None:
    before, after = (
        learning_rate(0.3 + side, peak=1.0, warmup=0.3, start=0.0, schedule=schedule) for side in (-1e-9, 1e-9)
    )

    assert before == pytest.approx(after, abs=1e-7)


@pytest.mark.parametrize("schedule", FALLING)
def test_a_warm_up_may_be_the_whole_run(schedule: str) -> None:
    lrs = [learning_rate(at, peak=2.0, warmup=1.0, start=0.0, schedule=schedule) for at in (0.0, 0.5, 1.0)]

    assert lrs == pytest.approx([0.0, 1.0, 2.0])


@pytest.mark.parametrize("schedule", FALLING)
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


STEPS = 200
PEAK = 0.7


def of_pytorch(scheduler: Callable[[torch.optim.Optimizer], Any], lr: float = PEAK) -> list[float]:
    """The learning rates of the first `STEPS` steps and of the one after them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=lr)
    made = scheduler(optimizer)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(STEPS):
        optimizer.step()
        made.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def ours(schedule: str, steps: int = STEPS, **options: Any) -> list[float]:
    at = (step / steps for step in range(steps + 1))
    return [learning_rate(each, peak=PEAK, warmup=0.0, start=0.0, schedule=schedule, **options) for each in at]


def test_step_is_pytorchs_multi_step_lr() -> None:
    theirs = of_pytorch(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [50, 120, 190], gamma=0.3))

    assert ours("step", milestones=(0.25, 0.6, 0.95), factor=0.3) == pytest.approx(theirs, rel=1e-12)


def test_step_with_equal_distances_is_pytorchs_step_lr() -> None:
    theirs = of_pytorch(lambda o: torch.optim.lr_scheduler.StepLR(o, 50, gamma=0.5))

    assert ours("step", milestones=(0.25, 0.5, 0.75), factor=0.5)[:-1] == pytest.approx(theirs[:-1], rel=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
def test_cosine_with_a_floor_is_pytorchs_cosine_annealing_lr(floor: float) -> None:
    theirs = of_pytorch(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=floor * PEAK))

    assert ours("cosine", floor=floor) == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_linear_with_a_floor_is_pytorchs_linear_lr(floor: float) -> None:
    theirs = of_pytorch(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, floor, STEPS))

    assert ours("linear", floor=floor) == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("peak_at", "start", "end"), [(0.3, 25.0, 1e4), (0.5, 10.0, 100.0), (1.0, 4.0, 1.0)])
def test_one_cycle_is_pytorchs_one_cycle_lr(peak_at: float, start: float, end: float) -> None:
    # PyTorch's last step is at the end of the cycle, and its first phase one step shorter than its share.
    share = (peak_at * STEPS + 1) / (STEPS + 1)

    def scheduler(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            PEAK,
            total_steps=STEPS + 1,
            pct_start=share,
            div_factor=start,
            final_div_factor=end,
            cycle_momentum=False,
        )

    found = ours("one_cycle", peak_at=peak_at, start_divisor=start, end_divisor=end)

    assert found == pytest.approx(of_pytorch(scheduler), rel=1e-12, abs=1e-12)
    assert max(found) == pytest.approx(PEAK, rel=1e-12)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0.0, 0.0),
        (0.05, 0.5),
        (0.1, 1.0),
        (0.4, 1.0),
        (0.75, 1.0),
        (0.8, 0.82),
        (0.875, 0.55),
        (0.95, 0.28),
        (1.0, 0.1),
    ],
)
def test_wsd_warms_up_stays_and_decays_to_its_floor(at: float, expected: float) -> None:
    lr = learning_rate(at, peak=2.0, warmup=0.1, start=0.0, schedule="wsd", decay=0.25, floor=0.1)

    assert lr == pytest.approx(2.0 * expected, abs=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_milestones_and_decay_are_fractions_of_the_whole_budget_with_a_warm_up_or_without(warmup: float) -> None:
    for schedule in ("step", "wsd"):
        lrs = [
            learning_rate(at, peak=1.0, warmup=warmup, start=0.0, schedule=schedule, milestones=(0.4, 0.8), decay=0.5)
            for at in (0.39, 0.41, 0.79, 0.81)
        ]

        expected = {"step": (1.0, 0.1, 0.1, 0.01), "wsd": (1.0, 1.0, 0.42, 0.38)}[schedule]
        assert lrs == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "warmup", "message"),
    [
        ("step", {"milestones": ()}, 0.0, r"schedule_milestones=\[\] is invalid"),
        ("step", {"milestones": (0.5, 0.5)}, 0.0, r"\[0.5,0.5\] is invalid: give fractions .* in rising order"),
        ("step", {"milestones": (0.0, 0.5)}, 0.0, "above 0 and below 1"),
        ("step", {"milestones": (0.5, 1.0)}, 0.0, "above 0 and below 1"),
        (
            "step",
            {"floor": 0.1},
            0.0,
            "schedule=step does not use schedule_floor=0.1: leave it out, or use schedule=li",
        ),
        ("cosine", {"milestones": (0.2, 0.5)}, 0.0, r"schedule=cosine does not use schedule_milestones=\[0.2,0.5\]"),
        (
            "constant",
            {"end_divisor": 2.0},
            0.0,
            "does not use schedule_end_divisor=2: leave it out, or use schedule=one",
        ),
        (None, {"decay": 0.5}, 0.0, "a schedule of your own does not use schedule_decay=0.5"),
        ("one_cycle", {}, 0.1, "schedule=one_cycle warms up by itself: use warmup=0"),
        ("step", {}, 0.51, "takes 0.51 of the budget, but schedule=step leaves the peak at 0.5: use a shorter warmup"),
        ("wsd", {"decay": 0.3}, 0.71, "schedule=wsd leaves the peak at 0.7: .* or another schedule_decay"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(
    name: str | None, options: dict[str, Any], warmup: float, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        check_both(name, DEFAULTS | options, warmup)


@pytest.mark.parametrize(("name", "warmup"), [("step", 0.5), ("wsd", 0.8), ("cosine", 1.0), ("one_cycle", 0.0)])
def test_options_that_just_fit_are_taken(name: str, warmup: float) -> None:
    check_both(name, DEFAULTS, warmup)


def check_both(name: str | None, options: dict[str, Any], warmup: float) -> None:
    check_options(name, options, DEFAULTS)
    if name is not None:
        check_warmup(name, options, warmup)
