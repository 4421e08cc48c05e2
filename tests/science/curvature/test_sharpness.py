"""SAM, ASAM and Keskar's metric against closed forms, grids, and a rescaled network."""

import math

import numpy as np
import pytest
import torch

from batchlab.science.curvature.sharpness import asam, keskar, sam

RANDOM = torch.Generator().manual_seed(0)


def with_gradient(loss, w):
    w = w.clone().requires_grad_()
    value = loss(w)
    return value.item(), torch.autograd.grad(value, w)[0]


def quadratic():
    """L(w) = w'Hw/2 + b'w, with weights, gradient and Hessian."""
    square = torch.randn(6, 6, generator=RANDOM, dtype=torch.float64)
    hessian, b = square + square.T, torch.randn(6, generator=RANDOM, dtype=torch.float64)
    weights = torch.randn(6, generator=RANDOM, dtype=torch.float64)
    return (lambda w: float(w @ hessian @ w / 2 + b @ w)), weights, hessian @ weights + b, hessian


def test_sam_on_a_quadratic_is_its_closed_form():
    loss, weights, g, hessian = quadratic()
    rho = 0.3
    expected = rho * g.norm() + rho**2 / 2 * (g @ hessian @ g) / g.square().sum()
    assert sam(loss, weights, g, rho=rho) == pytest.approx(float(expected), rel=1e-12)


def test_asam_on_a_quadratic_is_its_closed_form():
    loss, weights, g, hessian = quadratic()
    rho, t = 0.3, torch.diag(weights.abs() + 0.01)
    step = t @ t @ g
    expected = rho * (t @ g).norm() + rho**2 / 2 * (step @ hessian @ step) / (t @ g).square().sum()
    assert asam(loss, weights, g, scale=weights.abs() + 0.01, rho=rho) == pytest.approx(float(expected), rel=1e-12)


def test_rescaling_relu_layers_changes_sam_and_not_asam():
    inputs = torch.randn(20, 4, generator=RANDOM, dtype=torch.float64)
    labels = torch.randint(3, (20,), generator=RANDOM)

    def loss_of(w):
        hidden = torch.relu(inputs @ w[:20].view(4, 5) + w[20:25])
        return torch.nn.functional.cross_entropy(hidden @ w[25:40].view(5, 3) + w[40:], labels)

    def seen(w):
        _, gradient = with_gradient(loss_of, w)
        value = lambda at: float(loss_of(at))  # noqa: E731
        return sam(value, w, gradient, rho=0.05), asam(value, w, gradient, scale=w.abs(), rho=0.5)

    weights = torch.randn(43, generator=RANDOM, dtype=torch.float64)
    rescaled = weights * torch.cat([torch.full((25,), 8.0), torch.full((15,), 0.125), torch.ones(3)])
    assert float(loss_of(rescaled)) == pytest.approx(float(loss_of(weights)), rel=1e-12)

    (sam_before, asam_before), (sam_after, asam_after) = seen(weights), seen(rescaled)

    assert asam_after == pytest.approx(asam_before, rel=1e-9)
    assert abs(sam_after / sam_before - 1) > 0.5


def test_without_a_gradient_there_is_no_direction_uphill():
    weights = torch.ones(3)
    assert math.isnan(sam(lambda w: float(w.sum()), weights, torch.zeros(3), rho=0.1))
    assert math.isnan(asam(lambda w: float(w.sum()), torch.zeros(3), weights, scale=torch.zeros(3), rho=0.1))


# Keskar's metric

CENTRE = torch.tensor([0.7, -1.3], dtype=torch.float64)
SURFACES = {
    "a slope": lambda w: 3 + w @ torch.tensor([0.3, -2.0], dtype=torch.float64),
    "a minimum, seen from its very bottom": lambda w: ((w - CENTRE) ** 2) @ torch.tensor([40.0, 3.0]).double(),
    "a saddle, seen from its very middle": lambda w: 2 + (w - CENTRE).prod(-1),
    "a hill inside the box": lambda w: 5 - 100 * ((w - CENTRE - 0.002) ** 2).sum(-1),
    "a ridge": lambda w: 1 - 1e4 * (w[..., 0] - w[..., 1] - 2.0) ** 2 + 0.1 * w.sum(-1),
    "a network's loss": lambda w: torch.log1p(torch.exp(-w[..., 0] * torch.tanh(200 * (w[..., 1] + 1.3)))),
}


@pytest.mark.parametrize("name", SURFACES)
def test_keskars_metric_is_the_maximum_over_a_grid(name):
    surface, epsilon = SURFACES[name], 5e-3
    box = epsilon * (CENTRE.abs() + 1)
    axes = [torch.linspace(float(-b), float(b), 401, dtype=torch.float64) for b in box]
    grid = torch.cartesian_prod(*axes)
    values = surface(CENTRE + grid)
    before = float(surface(CENTRE))
    expected = 100 * (float(values.max()) - before) / (1 + before)
    seen = []

    def loss(w):
        seen.append(w)
        return with_gradient(surface, w)

    generator = torch.Generator().manual_seed(0)
    found = keskar(loss, CENTRE, epsilon=epsilon, iterations=10, generator=generator)

    # Never above the maximum, which the grid may miss by half a step.
    assert found == pytest.approx(expected, rel=2e-3)
    assert all(torch.all((w - CENTRE).abs() <= box * (1 + 1e-12)) for w in seen)
    assert len(seen) <= 110


def test_keskars_metric_of_a_slope_is_its_closed_form_in_many_dimensions():
    slope = torch.randn(500, generator=RANDOM, dtype=torch.float64)
    weights = torch.randn(500, generator=RANDOM, dtype=torch.float64)
    rise = float((1e-3 * (weights.abs() + 1) * slope.abs()).sum())
    constant = 2 - float(slope @ weights)  # so that f(x) = 2

    found = keskar(
        lambda w: (constant + float(slope @ w), slope), weights, epsilon=1e-3, iterations=10, generator=RANDOM
    )

    assert found == pytest.approx(100 * rise / 3, rel=1e-3)


def test_keskars_metric_on_a_plain_is_zero():
    flat = keskar(lambda w: (1.0, torch.zeros(3)), torch.ones(3), epsilon=1e-3, iterations=10, generator=RANDOM)
    assert flat == 0.0


def test_keskars_ascent_climbs_a_steep_valley_of_many_dimensions_almost_to_the_maximum():
    # L = w'Dw/2 at its minimum: the maximum over the box |z_i| <= e is at every corner, e^2 tr(D)/2.
    curvature = torch.from_numpy(np.geomspace(1e-3, 100, 300))
    bottom = torch.zeros(300, dtype=torch.float64)
    found = keskar(
        lambda w: (float(curvature @ w.square() / 2), curvature * w),
        bottom,
        epsilon=1e-3,
        iterations=10,
        generator=RANDOM,
    )
    assert found == pytest.approx(100 * 1e-6 * float(curvature.sum()) / 2, rel=0.02)
