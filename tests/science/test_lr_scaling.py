"""The rules by which the learning rate follows the batch size, against sums done by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import BadRequest
from batchlab.science.lr_scaling import RULES, Scaled

ADAM = Scaled(lr=0.1, betas=(0.9, 0.95), eps=1e-8)

# 0.9^4 = 0.6561, 0.95^4 = 0.81450625, 0.9^(1/4) = 0.97400374..., 0.95^(1/4) = 0.98725854...
BY_HAND = [
    ("none", 4, 0.1, (0.9, 0.95), 1e-8),
    ("none", 0.25, 0.1, (0.9, 0.95), 1e-8),
    ("linear", 4, 0.4, (0.9, 0.95), 1e-8),
    ("linear", 0.25, 0.025, (0.9, 0.95), 1e-8),
    ("sqrt", 4, 0.2, (0.9, 0.95), 1e-8),
    ("sqrt", 0.25, 0.05, (0.9, 0.95), 1e-8),
    ("adam_sqrt", 4, 0.2, (0.6561, 0.81450625), 5e-9),
    ("adam_sqrt", 0.25, 0.05, (0.974003746425297, 0.987258544901434), 2e-8),
    ("adam_half_life", 4, 0.1, (0.9, 0.81450625), 1e-8),
    ("adam_half_life", 0.25, 0.1, (0.9, 0.987258544901434), 1e-8),
]


def numbers(scaled: Scaled) -> list[float]:
    assert scaled.betas is not None
    assert scaled.eps is not None
    return [scaled.lr, *scaled.betas, scaled.eps]


def test_every_rule_is_done_by_hand_below() -> None:
    assert {name for name, *_ in BY_HAND} == set(RULES)


@pytest.mark.parametrize(("rule", "ratio", "lr", "betas", "eps"), BY_HAND)
def test_a_rule_gives_what_its_formula_gives_by_hand(
    rule: str, ratio: float, lr: float, betas: tuple[float, float], eps: float
) -> None:
    assert numbers(RULES[rule](ratio, ADAM)) == pytest.approx([lr, *betas, eps], rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(lr=st.floats(1e-6, 10), beta=st.floats(0.1, 0.9999))
def test_at_the_reference_batch_size_nothing_moves(rule: str, lr: float, beta: float) -> None:
    base = Scaled(lr=lr, betas=(beta, beta), eps=1e-8)

    assert RULES[rule](1.0, base) == base


@pytest.mark.parametrize("rule", RULES)
@given(first=st.floats(1 / 64, 64), second=st.floats(1 / 64, 64))
def test_going_there_in_two_strides_is_going_there_in_one(rule: str, first: float, second: float) -> None:
    in_two = RULES[rule](second, RULES[rule](first, ADAM))
    in_one = RULES[rule](first * second, ADAM)

    for one, two in zip(numbers(in_one), numbers(in_two), strict=True):
        # The error of a power grows with its exponent times log beta: relative to the exponent, not to the result.
        assert two == pytest.approx(one, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt"])
def test_the_plain_rules_leave_alone_what_an_optimizer_without_betas_lacks(rule: str) -> None:
    scaled = RULES[rule](4.0, Scaled(lr=0.1))

    assert (scaled.betas, scaled.eps) == (None, None)


@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("short", [1e-2, 1e-3, 1e-4])
def test_adam_sqrt_agrees_with_the_paper_to_first_order(ratio: float, short: float) -> None:
    beta, _ = RULES["adam_sqrt"](ratio, Scaled(lr=1.0, betas=(1 - short, 1 - short), eps=1e-8)).betas or (0, 0)

    in_the_paper = 1 - ratio * short  # Malladi et al. 2022
    assert abs(beta - in_the_paper) < (ratio * short) ** 2
    assert abs(beta - 1) > 0.9 * ratio * short  # or a rule that leaves beta near 1 would pass


def test_adam_sqrt_keeps_betas_where_the_paper_goes_negative() -> None:
    scaled = RULES["adam_sqrt"](1000.0, Scaled(lr=1.0, betas=(0.9, 0.999), eps=1e-8))

    assert all(0 < beta < 1 for beta in scaled.betas or ())
    assert 1 - 1000 * (1 - 0.9) < 0


def test_adam_half_life_keeps_the_half_life_in_examples() -> None:
    _, before = ADAM.betas or (0, 0)
    _, after = RULES["adam_half_life"](8.0, ADAM).betas or (0, 0)

    def half_life_examples(beta: float, batch_size: int) -> float:
        return batch_size * math.log(0.5) / math.log(beta)

    assert half_life_examples(after, 8 * 32) == pytest.approx(half_life_examples(before, 32), rel=1e-12)


@pytest.mark.parametrize("rule", ["adam_sqrt", "adam_half_life"])
def test_an_adam_rule_is_refused_without_betas(rule: str) -> None:
    with pytest.raises(BadRequest, match=rf"^lr_scaling={rule} moves betas, .*has none: use optimizer=adamw"):
        RULES[rule](2.0, Scaled(lr=0.1))


def test_adam_sqrt_is_refused_without_eps() -> None:
    with pytest.raises(BadRequest, match=r"^lr_scaling=adam_sqrt also moves eps, .*has none: use optimizer=adamw"):
        RULES["adam_sqrt"](2.0, Scaled(lr=0.1, betas=(0.9, 0.999)))
