"""The sum over each example's terms: bitwise the same in one operation as example by example."""

import pytest
import torch
from aten_ops import Operations

from batchlab.training.passes.evaluation import SHARED_SUM, _summed


def losses(n, generator=None):
    return torch.randn(n, dtype=torch.float64, generator=generator or torch.Generator().manual_seed(0)).exp()


@pytest.mark.parametrize("threads", [1, 2])
def test_each_sum_is_the_one_of_the_examples_own_terms_to_the_bit(threads):
    mine = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for examples in (1, 2, 3, 16, 17):
            for terms in (0, 1, 2, 3, 7, 8, 64, 65, 1000, SHARED_SUM - 1, SHARED_SUM, 60_000):
                values = losses(examples * terms)
                alone = [values[i * terms : (i + 1) * terms].sum() for i in range(examples)]
                assert _summed(values, [terms] * examples).tolist() == [value.item() for value in alone]
    finally:
        torch.set_num_threads(mine)


def test_examples_of_different_lengths_keep_their_own_terms():
    values = losses(9)

    assert _summed(values, [4, 0, 2, 3]).tolist() == pytest.approx(
        [values[:4].sum().item(), 0, values[4:6].sum().item(), values[6:].sum().item()]
    )


def test_a_thousand_windows_of_a_text_are_one_operation():
    values = losses(64_000)

    with Operations() as operations:
        found = _summed(values, [64] * 1000)

    assert found.shape == (1000,)
    assert operations.count == 1
