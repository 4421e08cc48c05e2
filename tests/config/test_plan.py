"""What a configuration means once the size of the data is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_defaults import configured

from batchlab.config import RunConfig
from batchlab.config.plan import learning_rates, plan, scaled
from batchlab.errors import BadRequest

N = 1437  # training examples of the digits


def config(**changes: Any) -> RunConfig:
    plain = {"batch_size": 32, "default_epochs": 20, "lr_scaling": "none", "warmup": 0, "warmup_from": "zero"}
    return configured(**plain | {"schedule": "constant", "eval_every": None, "log_every": None} | changes)


def test_a_plan_worked_out_by_hand() -> None:
    made = plan(config(batch_size=32, epochs=20, warmup=0.1), N)

    # 20 x 1437 = 28740 = 898 x 32 + 4
    assert (made.steps, made.examples, made.remainder) == (898, 28736, 4)
    assert made.warmup_examples == pytest.approx(2874)
    assert (made.eval_every, made.log_every) == (359, 143)


@given(
    n_train=st.integers(1, 3000),
    batch_size=st.integers(1, 3000),
    budget=st.sampled_from(["epochs", "examples", "steps"]),
    amount=st.integers(1, 4000),
)
def test_steps_are_whole_and_what_is_left_is_less_than_one(
    n_train: int, batch_size: int, budget: str, amount: int
) -> None:
    examples = {"epochs": amount * n_train, "examples": amount, "steps": amount * batch_size}[budget]
    asked = config(batch_size=batch_size, **{budget: amount})
    if batch_size > n_train or batch_size > examples:
        with pytest.raises(BadRequest):
            plan(asked, n_train)
        return

    made = plan(asked, n_train)

    assert made.steps >= 1
    assert made.examples == made.steps * batch_size
    assert 0 <= made.remainder < batch_size
    assert made.examples + made.remainder == examples
    assert made.eval_every >= 1
    assert made.log_every >= 1


@pytest.mark.parametrize("budget", [{"epochs": 2}, {"epochs": 0.75}, {"examples": 5000}])
@pytest.mark.parametrize("rest", [{}, {"warmup": 0.2}, {"warmup": 100}, {"eval_every": 50, "log_every": 10}])
def test_every_batch_size_is_treated_alike(budget: dict[str, Any], rest: dict[str, Any]) -> None:
    plans = [plan(config(batch_size=size, **budget, **rest), N) for size in (1, 8, 32, 33, 256, 1000)]

    assert len({p.examples + p.remainder for p in plans}) == 1
    assert len({p.warmup_examples for p in plans}) == 1
    assert len({(p.eval_every, p.log_every) for p in plans}) == 1


def test_micro_batches_change_nothing_about_the_plan() -> None:
    assert plan(config(batch_size=64, accumulate=4), N) == plan(config(batch_size=64), N)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"batch_size": 100000},
            "batch_size=100000 is larger than the training set of 1437 examples: use at most 1437",
        ),
        ({"batch_size": 1438}, "batch_size=1438 is larger than the training set of 1437 examples"),
        ({"batch_size": 10**20}, "larger than the training set of 1437 examples"),
        ({"batch_size": 256, "examples": 255}, "examples=255 is less than one batch (batch_size=256)"),
        ({"batch_size": 256, "epochs": 0.1}, "epochs=0.1, 143 examples, is less than one batch (batch_size=256)"),
        ({"epochs": 1e308}, "epochs=1e+308 is a budget of more than 2**53 examples"),
        ({"steps": 10**20}, f"steps={10**20} is a budget of more than 2**53 examples"),
        ({"examples": 100, "warmup": 60, "schedule": "step"}, "the warm-up takes 0.6 of the budget, but schedule=step"),
        ({"warmup": 1, "schedule": "one_cycle"}, "schedule=one_cycle warms up by itself: use warmup=0"),
        ({"examples": 100, "warmup": 101}, "warmup=101 examples is longer than the budget of 100 examples"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plan(config(**changes), N)

    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_just_fits_is_planned() -> None:
    assert plan(config(batch_size=N), N).steps == 20
    assert plan(config(batch_size=256, examples=256), N).steps == 1
    assert plan(config(examples=100, warmup=100), N).warmup_examples == 100


@pytest.mark.parametrize(("warmup", "examples"), [(0, 0), (0.5, 500), (0.999, 999), (1, 1), (250, 250)])
def test_a_warm_up_below_one_is_a_fraction_of_the_budget_and_else_counts_examples(warmup: float, examples: int) -> None:
    assert plan(config(examples=1000, warmup=warmup), N).warmup_examples == pytest.approx(examples)


def test_eval_every_and_log_every_are_honoured_and_never_zero() -> None:
    asked = plan(config(eval_every=7, log_every=3), N)
    tiny = plan(config(batch_size=1, examples=2), 2)

    assert (asked.eval_every, asked.log_every) == (7, 3)
    assert (tiny.eval_every, tiny.log_every) == (1, 1)


def test_the_rule_is_applied_to_the_ratio_of_the_batch_sizes() -> None:
    grown = config(batch_size=256, reference_batch_size=32, lr=0.1, lr_scaling="linear")
    shrunk = config(batch_size=8, reference_batch_size=32, lr=0.1, lr_scaling="sqrt")
    adam = config(batch_size=64, reference_batch_size=32, lr=0.1, lr_scaling="adam_half_life")

    assert scaled(grown, {}).lr == pytest.approx(0.8)
    assert scaled(shrunk, {}).lr == pytest.approx(0.05)
    assert scaled(adam, {"betas": (0.9, 0.9), "eps": 1e-8}).betas == pytest.approx((0.9, 0.81))


def test_a_rule_that_follows_the_noise_scale_gets_it() -> None:
    asked = config(batch_size=128, reference_batch_size=32, lr=0.1, lr_scaling="noise", noise_scale=96)

    assert scaled(asked, {}).lr == pytest.approx(0.1 * (1 + 96 / 32) / (1 + 96 / 128))


def test_betas_and_eps_are_the_configs_own_before_those_of_the_signature() -> None:
    signature = {"betas": (0.9, 0.999), "eps": 1e-8}
    given = {"_target_": "torch.optim.Adam", "betas": [0.5, 0.6], "eps": 1e-3}

    own, default = scaled(config(optimizer=given), signature), scaled(config(), signature)

    assert (own.betas, own.eps) == ((0.5, 0.6), 1e-3)
    assert (default.betas, default.eps) == ((0.9, 0.999), 1e-8)


@pytest.mark.parametrize("takes", [{"betas": None, "eps": None}, {"betas": object, "eps": (None, 1e-3)}])
def test_what_a_signature_calls_betas_and_eps_and_is_something_else_is_left_alone(takes: dict[str, Any]) -> None:
    after = scaled(config(), takes)

    assert (after.betas, after.eps) == (None, None)


@pytest.mark.parametrize("betas", [0.9, "0.9", ["a", "b"], None, [True, False]])
def test_betas_that_are_no_list_of_numbers_are_refused(betas: Any) -> None:
    with pytest.raises(BadRequest, match=r"^optimizer.betas=.* is invalid: write a list of numbers, .*=\[0.9,0.999\]$"):
        scaled(config(optimizer={"_target_": "torch.optim.Adam", "betas": betas}), {})


@pytest.mark.parametrize(
    ("changes", "examples_seen", "rate"),
    [
        ({}, 0, 0.8),
        ({}, 640, 0.8),
        # The middle of the first batch of 64 is at 32 of 1024; of the last, at 992.
        ({"schedule": "linear"}, 0, 0.8 * (1 - 32 / 1024)),
        ({"schedule": "linear"}, 960, 0.8 * 32 / 1024),
        ({"warmup": 0.25}, 0, 0.8 * 32 / 256),
        ({"warmup": 256}, 0, 0.8 * 32 / 256),
        ({"warmup": 0.25}, 192, 0.8 * 224 / 256),
        ({"warmup": 0.25}, 256, 0.8),
        ({"warmup": 0.25, "warmup_from": "base"}, 0, 0.1 + 0.7 * 32 / 256),
        ({"warmup": 0.25, "schedule": "linear"}, 256, 0.8 * (1 - 32 / 768)),
        ({"schedule": "linear", "schedule_floor": 0.1}, 960, 0.8 * (0.1 + 0.9 * 32 / 1024)),
        ({"schedule": "step", "schedule_milestones": [0.25], "schedule_factor": 0.5}, 192, 0.8),
        ({"schedule": "step", "schedule_milestones": [0.25], "schedule_factor": 0.5}, 256, 0.4),
        ({"warmup": 0.25, "schedule": "wsd", "schedule_decay": 0.5}, 128, 0.8 * 160 / 256),
        ({"warmup": 0.25, "schedule": "wsd", "schedule_decay": 0.5}, 960, 0.8 * 32 / 512),
    ],
)
def test_the_rate_of_a_step_is_that_of_the_middle_of_its_batch(
    changes: dict[str, Any], examples_seen: int, rate: float
) -> None:
    asked = config(batch_size=64, examples=1024, lr=0.1, **changes)

    assert learning_rates(asked, plan(asked, N), 0.8)(examples_seen) == pytest.approx(rate, rel=1e-12)


def test_a_warm_up_from_the_base_rate_does_nothing_where_the_rule_lowers_it() -> None:
    asked = config(batch_size=8, examples=1024, lr=0.1, warmup=0.5, warmup_from="base")

    assert learning_rates(asked, plan(asked, N), 0.05)(0) == 0.05


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule": "constant"},
        {"schedule": "linear", "schedule_floor": 0.1},
        {"schedule": "cosine"},
        {"schedule": "step"},
        {"schedule": "wsd", "schedule_decay": 0.25},  # it begins to decay between two batches of any size
    ],
)
@pytest.mark.parametrize("warmup_from", ["zero", "base"])
def test_the_mean_rate_is_the_same_for_every_batch_size(schedule: dict[str, Any], warmup_from: str) -> None:
    means = []
    for batch_size in (1, 8, 32, 128):
        asked = config(batch_size=batch_size, examples=1024, lr=0.1, warmup=0.125, warmup_from=warmup_from, **schedule)
        made = plan(asked, N)
        of_step = learning_rates(asked, made, 0.8)
        rates = [of_step(step * batch_size) for step in range(made.steps)]
        means.append(sum(rates) / len(rates))

    assert means == pytest.approx([means[0]] * 4, rel=1e-12)
