"""The ends of a spectrum and the trace, against planted spectra, dense matrices and closed forms."""

import math

import numpy as np
import pytest
import torch
from aten_ops import Operations

from batchlab.science.curvature.spectrum import extreme_eigenvalues, trace

RANDOM = np.random.default_rng(0)


def matrix_of(spectrum):
    """A symmetric matrix with this spectrum, in random directions."""
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(len(spectrum), len(spectrum))))
    return torch.from_numpy((rotation * np.asarray(spectrum, dtype=float)) @ rotation.T)


class Counted:
    """Products with a matrix, counted."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0

    def __call__(self, vector):
        self.products += 1
        return self.matrix @ vector


def ends_of(matrix, *, tolerance=1e-9, most_products=2000, seed=0, **rest):
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    product = Counted(matrix)
    found = extreme_eigenvalues(product, start.to(matrix), tolerance=tolerance, most_products=most_products, **rest)
    assert found.products == product.products <= most_products + 2
    return found


SPECTRA = {
    "the largest |eigenvalue| is negative": [-50.0, *np.linspace(-3, 2, 77), 4.0, 4.5],
    "a cluster at each end": [-1, -1 + 1e-5, -1 + 2e-5, *np.linspace(-0.5, 9, 60), 10 - 2e-5, 10 - 1e-5, 10],
    "degenerate ends": [*[-7.0] * 5, *np.linspace(-6, 2, 50), *[3.0] * 5],
    "a network's: few large, many near zero": [-0.3, *np.linspace(-0.01, 0.01, 90), 1, 2, 5, 20, 40.0],
    "all negative": -np.geomspace(0.5, 200, 50),
    "two numbers, many times each": [*[-2.0] * 30, *[5.0] * 30],
}


@pytest.mark.parametrize("most_vectors", [40, 16])
@pytest.mark.parametrize("name", SPECTRA)
def test_both_ends_of_a_planted_spectrum_are_found(name, most_vectors):
    spectrum = SPECTRA[name]

    found = ends_of(matrix_of(spectrum), most_vectors=most_vectors)

    radius = max(abs(value) for value in spectrum)
    for end, expected in ((found.smallest, min(spectrum)), (found.largest, max(spectrum))):
        assert end.value == pytest.approx(expected, rel=1e-6, abs=1e-12)
        assert end.converged
        assert end.residual <= 1e-9 * radius


@pytest.mark.parametrize("seed", range(5))
def test_a_random_symmetric_matrix_agrees_with_its_dense_decomposition(seed):
    square = torch.from_numpy(np.random.default_rng(seed).normal(size=(120, 120)))
    dense = np.linalg.eigvalsh((square + square.T).numpy())

    found = ends_of(square + square.T, seed=seed)

    assert found.largest.value == pytest.approx(dense[-1], rel=1e-6)
    assert found.smallest.value == pytest.approx(dense[0], rel=1e-6)


def test_linear_regression_has_the_curvature_of_its_closed_form():
    # Mean squared error of X w: the Hessian is 2 X'X/N, and X is made of N rows with X'X/N = diag(1, 4, 9, 16).
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(50, 4)))
    inputs = torch.from_numpy(math.sqrt(50) * rotation * [1.0, 2.0, 3.0, 4.0])
    loss = lambda w: (inputs @ w - 1.0).square().mean()  # noqa: E731

    found = ends_of(torch.autograd.functional.hessian(loss, torch.zeros(4, dtype=torch.float64)))

    assert found.largest.value == pytest.approx(32.0, rel=1e-12)
    assert found.smallest.value == pytest.approx(2.0, rel=1e-12)


def test_softmax_regression_at_zero_has_the_curvature_of_its_closed_form():
    # At zero weights every class has chance 1/C, and the Hessian is (X'X/N) x (I/C - 11'/C^2) (Kronecker): its
    # eigenvalues are those of X'X/N over C, C - 1 times each, and 0.
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(40, 3)))
    inputs = torch.from_numpy(math.sqrt(40) * rotation * [1.0, 2.0, 3.0])
    labels = torch.from_numpy(RANDOM.integers(0, 5, 40))
    loss = lambda w: torch.nn.functional.cross_entropy(inputs @ w.view(3, 5), labels)  # noqa: E731

    found = ends_of(torch.autograd.functional.hessian(loss, torch.zeros(15, dtype=torch.float64)))

    assert found.largest.value == pytest.approx(9 / 5, rel=1e-12)
    assert found.smallest.value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("most_products", [1, 2, 5, 9])
def test_if_stopped_early_the_residual_still_bounds_an_eigenvalue_and_it_is_not_converged(most_products):
    spectrum = np.linspace(-5, 10, 200)
    found = ends_of(matrix_of(spectrum), most_products=most_products)
    for end in (found.smallest, found.largest):
        assert not end.converged
        assert np.abs(spectrum - end.value).min() <= end.residual < 16
    assert found.smallest.value > -5
    assert found.largest.value < 10


def test_the_residual_comes_from_a_separate_product():
    # A product that drifts, as with a loss that draws new numbers each time: the recursion's residual would be 0.
    matrix, drift = matrix_of([1.0, 2.0, 3.0, 9.0]), Counted(torch.eye(4).double())
    found = extreme_eigenvalues(
        lambda v: matrix @ v + (0.5 * drift(v).flip(0) if drift.products >= 4 else 0 * drift(v)),
        torch.ones(4, dtype=torch.float64),
        tolerance=1e-9,
        most_products=100,
    )
    assert found.largest.residual > 0.01
    assert not found.largest.converged


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (torch.zeros(7, 7).double(), (0.0, 0.0)),
        (3 * torch.eye(9).double(), (3.0, 3.0)),
        (torch.tensor([[-4.0]]).double(), (-4.0, -4.0)),
        (torch.diag(torch.tensor([2.0, -1.0])).double(), (-1.0, 2.0)),
        (torch.ones(30, 30).double(), (0.0, 30.0)),
    ],
    ids=["zero", "a multiple of one", "one number", "two numbers", "rank one"],
)
def test_an_exhausted_space_gives_an_exact_result(matrix, expected):
    found = ends_of(matrix, tolerance=1e-12)
    assert (found.smallest.value, found.largest.value) == pytest.approx(expected, abs=1e-12)
    assert found.smallest.converged
    assert found.largest.converged
    assert found.products <= 5


def test_in_float32_it_is_as_good_as_float32():
    spectrum = SPECTRA["a network's: few large, many near zero"]
    found = ends_of(matrix_of(spectrum).float(), tolerance=1e-3)
    assert found.largest.value == pytest.approx(40.0, rel=1e-5)
    assert abs(found.smallest.value + 0.3) <= max(found.smallest.residual, 1e-3)
    assert found.largest.converged
    assert found.smallest.converged


def test_a_product_that_is_not_finite_gives_no_result():
    found = ends_of(torch.full((5, 5), math.nan).double())
    assert math.isnan(found.largest.value)
    assert found.largest.residual == math.inf
    assert not found.largest.converged
    assert math.isnan(trace_of(torch.full((5, 5), math.nan).double(), 3).value)


# trace


def trace_of(matrix, probes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return trace(lambda v: matrix @ v, matrix[0], probes=probes, generator=generator)


@pytest.mark.parametrize("probes", [20, 21, 100])
def test_the_trace_is_exact_with_a_full_orthogonal_set_of_probes(probes):
    found = trace_of(matrix_of(np.arange(-5.0, 15.0)), probes)
    assert found.value == pytest.approx(sum(range(-5, 15)), rel=1e-12)
    assert (found.standard_error, found.n) == (0.0, 20)
    assert found.low == found.value == found.high


def test_signs_see_a_diagonal_exactly():
    found = trace_of(torch.diag(torch.arange(100.0)).double(), 2)
    assert (found.value, found.standard_error, found.n) == (4950.0, 0.0, 2)


def test_the_trace_lies_within_its_standard_errors_and_these_are_right():
    matrix = matrix_of(SPECTRA["a network's: few large, many near zero"])
    true = float(torch.diagonal(matrix).sum())
    off_diagonal = matrix - torch.diag(torch.diagonal(matrix))
    of_one_probe = math.sqrt(2 * float(off_diagonal.square().sum()))  # the closed form, for random signs

    found = [trace_of(matrix, 16, seed) for seed in range(400)]

    values = np.array([f.value for f in found])
    expected = of_one_probe / 4
    assert all(abs(f.value - true) < 4 * expected for f in found)  # a normal value is beyond with probability 1/16,000
    assert abs(values.mean() - true) < 4 * expected / 20
    # 400 draws of a variance: within 4 x sqrt(2/400) = 28%
    assert values.var(ddof=1) == pytest.approx(expected**2, rel=0.28)
    assert np.mean([f.standard_error**2 for f in found]) == pytest.approx(expected**2, rel=0.28)
    assert 0.91 < np.mean([f.low < true < f.high for f in found]) < 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_are_those_that_the_generator_draws_as_whole_numbers(dtype):
    signs, generator = [], torch.Generator().manual_seed(5)
    like = torch.zeros(1001, dtype=dtype)
    trace(lambda v: signs.append(v) or v, like, probes=3, generator=torch.Generator().manual_seed(5))

    expected = [2 * torch.randint(2, (1001,), generator=generator) - 1 for _ in range(3)]

    assert [v.dtype for v in signs] == [dtype] * 3
    assert all(torch.equal(v, drawn.to(dtype)) for v, drawn in zip(signs, expected, strict=True))


def test_all_products_are_launched_before_the_first_synchronisation():
    matrix = matrix_of(SPECTRA["a network's: few large, many near zero"])
    with Operations() as operations:
        trace_of(matrix, 16)

    assert operations.seen["aten._local_scalar_dense.default"] == 0  # `float(tensor)`, `tensor.item()`
    assert operations.seen["aten.mv.default"] == 16
