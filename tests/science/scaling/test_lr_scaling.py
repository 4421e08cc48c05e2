"""The rules for scaling the learning rate with the batch size, against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import BadRequest
from batchlab.science.scaling.lr_scaling import NOISE_RULES, RULE_NAMES, Scaled, scaled

ADAM = Scaled(lr=0.1, betas=(0.9, 0.95), eps=1e-8)
B0, NOISE = 32, 96.0  # the noise scale is 3 reference batches

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
    ("noise", 4, 0.1 * (1 + 96 / 32) / (1 + 96 / 128), (0.9, 0.95), 1e-8),
    ("noise", 0.25, 0.1 * (1 + 96 / 32) / (1 + 96 / 8), (0.9, 0.95), 1e-8),
    # (sqrt(96/32) + sqrt(32/96)) / (sqrt(96/128) + sqrt(128/96)) = 2.30940108 / 2.02072594
    ("surge", 4, 0.1142857142857, (0.9, 0.95), 1e-8),
    # (sqrt(96/32) + sqrt(32/96)) / (sqrt(96/8) + sqrt(8/96)) = 2.30940108 / 3.75277675
    ("surge", 0.25, 0.0615384615385, (0.9, 0.95), 1e-8),
]


def at(rule: str, batch_size: float, base: Scaled = ADAM, noise_scale: float = NOISE, reference: float = B0) -> Scaled:
    """The rule, with a noise scale if it takes one; sizes need not be integers here."""
    return scaled(
        rule,
        base,
        batch_size=batch_size,  # type: ignore[arg-type]
        reference_batch_size=reference,  # type: ignore[arg-type]
        noise_scale=noise_scale if rule in NOISE_RULES else None,
    )


def numbers(given: Scaled) -> list[float]:
    assert given.betas is not None
    assert given.eps is not None
    return [given.lr, *given.betas, given.eps]


def test_every_rule_has_values_by_hand() -> None:
    assert {name for name, *_ in BY_HAND} == set(RULE_NAMES)


@pytest.mark.parametrize(("rule", "ratio", "lr", "betas", "eps"), BY_HAND)
def test_a_rule_gives_what_its_formula_gives_by_hand(
    rule: str, ratio: float, lr: float, betas: tuple[float, float], eps: float
) -> None:
    assert numbers(at(rule, ratio * B0)) == pytest.approx([lr, *betas, eps], rel=1e-9)


@pytest.mark.parametrize("rule", RULE_NAMES)
@given(lr=st.floats(1e-6, 10), beta=st.floats(0.1, 0.9999), noise_scale=st.floats(1e-300, 1e300))
def test_at_the_reference_batch_size_nothing_changes(rule: str, lr: float, beta: float, noise_scale: float) -> None:
    base = Scaled(lr=lr, betas=(beta, beta), eps=1e-8)

    there = at(rule, B0, base, noise_scale)

    assert there.lr == pytest.approx(lr, rel=1e-15)
    assert (there.betas, there.eps) == (base.betas, base.eps)


@pytest.mark.parametrize("rule", RULE_NAMES)
@given(first=st.floats(1 / 64, 64), second=st.floats(1 / 64, 64))
def test_scaling_in_two_steps_equals_scaling_in_one(rule: str, first: float, second: float) -> None:
    in_two = at(rule, first * second * B0, at(rule, first * B0), reference=first * B0)
    in_one = at(rule, first * second * B0)

    for one, two in zip(numbers(in_one), numbers(in_two), strict=True):
        # The error of a power grows with its exponent times log beta: relative to the exponent, not to the result.
        assert two == pytest.approx(one, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt", "noise"])
def test_the_plain_rules_work_without_betas(rule: str) -> None:
    given = at(rule, 4 * B0, Scaled(lr=0.1))

    assert (given.betas, given.eps) == (None, None)


@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("short", [1e-2, 1e-3, 1e-4])
def test_adam_sqrt_agrees_with_the_paper_to_first_order(ratio: float, short: float) -> None:
    base = Scaled(lr=1.0, betas=(1 - short, 1 - short), eps=1e-8)
    beta, _ = at("adam_sqrt", ratio * B0, base).betas or (0, 0)

    in_the_paper = 1 - ratio * short  # Malladi et al. 2022
    assert abs(beta - in_the_paper) < (ratio * short) ** 2
    assert abs(beta - 1) > 0.9 * ratio * short  # otherwise a rule that leaves beta near 1 would pass


def test_adam_sqrt_keeps_betas_where_the_paper_goes_negative() -> None:
    given = at("adam_sqrt", 1000 * B0, Scaled(lr=1.0, betas=(0.9, 0.999), eps=1e-8))

    assert all(0 < beta < 1 for beta in given.betas or ())
    assert 1 - 1000 * (1 - 0.9) < 0


def test_adam_half_life_keeps_the_half_life_in_examples() -> None:
    _, before = ADAM.betas or (0, 0)
    _, after = at("adam_half_life", 8 * B0).betas or (0, 0)

    def half_life_examples(beta: float, batch_size: int) -> float:
        return batch_size * math.log(0.5) / math.log(beta)

    assert half_life_examples(after, 8 * 32) == pytest.approx(half_life_examples(before, 32), rel=1e-12)


@pytest.mark.parametrize("ratio", [1 / 16, 1 / 2, 2, 64])
@pytest.mark.parametrize(
    ("rule", "noise_scale", "like"),
    [
        ("noise", 1e-12, lambda k: 1),  # every gradient is exact: more examples gain nothing
        ("noise", 1e300, lambda k: k),  # only noise: linear
        ("surge", 1e300, math.sqrt),
        ("surge", 1e-12, lambda k: 1 / math.sqrt(k)),
    ],
)
def test_without_noise_and_without_signal_a_rule_is_a_simple_one(rule, noise_scale, like, ratio) -> None:
    assert at(rule, ratio * B0, noise_scale=noise_scale).lr == pytest.approx(0.1 * like(ratio), rel=1e-10)


@given(ratio=st.floats(0.01, 100), variance=st.floats(1e-6, 1e6), squared_mean=st.floats(1e-6, 1e6))
def test_noise_is_the_gain_of_adascale(ratio: float, variance: float, squared_mean: float) -> None:
    """Johnson et al. 2020: `variance` is that of the gradient at the reference batch size, tr(Sigma) / B0."""
    gain = (variance + squared_mean) / (variance / ratio + squared_mean)

    given = at("noise", ratio * B0, noise_scale=B0 * variance / squared_mean)

    assert given.lr == pytest.approx(0.1 * gain, rel=1e-9)


@pytest.mark.parametrize("batch_size", [4, 32, 300, 5000])
def test_noise_is_the_learning_rate_that_lowers_a_quadratic_loss_most(batch_size: int) -> None:
    signal, noise, curvature = 0.7, 0.7 * NOISE, 3.0  # |G|^2, tr(Sigma); the Hessian is 3 times the identity
    lrs = np.linspace(1e-4, 0.4, 400_000)

    def best(size: int) -> float:
        lowered = lrs * signal - 0.5 * curvature * lrs**2 * (signal + noise / size)
        return float(lrs[np.argmax(lowered)])

    assert at("noise", batch_size, Scaled(lr=best(B0))).lr == pytest.approx(best(batch_size), rel=1e-4)


def test_surge_peaks_at_the_noise_scale_and_is_symmetric() -> None:
    lrs = {size: at("surge", size).lr for size in (NOISE / 8, NOISE / 1.01, NOISE, NOISE * 1.01, NOISE * 8)}

    assert max(lrs, key=lambda size: lrs[size]) == NOISE
    assert lrs[NOISE / 8] == pytest.approx(lrs[NOISE * 8], rel=1e-12)
    assert lrs[NOISE / 8] < 0.7 * lrs[NOISE]


@pytest.mark.parametrize("rule", ["adam_sqrt", "adam_half_life"])
def test_an_adam_rule_is_refused_without_betas(rule: str) -> None:
    with pytest.raises(BadRequest, match=rf"^lr_scaling={rule} changes betas, .*has none: use optimizer=adamw"):
        at(rule, 64, Scaled(lr=0.1))


def test_adam_sqrt_is_refused_without_eps() -> None:
    with pytest.raises(BadRequest, match=r"^lr_scaling=adam_sqrt also changes eps, .*has none: use optimizer=adamw"):
        at("adam_sqrt", 64, Scaled(lr=0.1, betas=(0.9, 0.999)))


def test_surge_is_refused_without_betas() -> None:
    with pytest.raises(BadRequest, match=r"^lr_scaling=surge is a rule for Adam, .*: .* or lr_scaling=noise$"):
        at("surge", 64, Scaled(lr=0.1))


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.95, 0.99), (-0.5, 0.9), (0.9, 1.0), ()])
def test_betas_that_are_not_adams_two_are_refused_if_the_rule_changes_them(betas: tuple[float, ...]) -> None:
    base = Scaled(lr=0.1, betas=betas, eps=1e-8)

    with pytest.raises(BadRequest, match=r"changes Adam's two betas, .* such as optimizer.betas=\[0.9,0.999\]$"):
        at("adam_sqrt", 16, base)
    assert at("linear", 64, base).betas == betas


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_a_rule_without_its_noise_scale_or_with_an_unused_one_is_refused(rule: str) -> None:
    noise_scale, message = (
        None,
        "needs noise_scale=...: .*=120, or .*=runs/STUDY/RUN .*instruments=noise` .*$",
    )
    if rule not in NOISE_RULES:
        noise_scale, message = (5.0, r"does not use noise_scale=5: leave it out, or use lr_scaling=noise or surge;")

    with pytest.raises(BadRequest, match=f"^lr_scaling={rule} {message}"):
        scaled(rule, ADAM, batch_size=8, reference_batch_size=32, noise_scale=noise_scale)
