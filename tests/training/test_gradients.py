"""Sparse and complex gradients: their norms and clipping are those of dense, real copies."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torture.tiny import Data, tiny

from batchlab.task import Task
from batchlab.training import assembly
from batchlab.training.data.batches import row
from batchlab.training.gradients import clip, inner_product, norm

WORDS = [[1, 2, 2], [2, 7, 1]]  # two of them several times: their rows are added up


def embedded(*, sparse):
    """The weights of an embedding with a gradient, and complex weights with one."""
    generator = torch.Generator().manual_seed(0)
    table = nn.Parameter(torch.randn(9, 4, dtype=torch.float64, generator=generator))
    wave = nn.Parameter(torch.randn(3, 4, dtype=torch.complex128, generator=generator))
    outputs = F.embedding(torch.tensor(WORDS), table, sparse=sparse)
    (outputs.square().sum() + (outputs[0].to(wave.dtype) @ wave.T).abs().sum()).backward()
    return [table, wave]


def pairs(gradient):
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def test_the_norm_is_that_of_all_real_numbers_in_them():
    sparse, dense = ([p.grad for p in embedded(sparse=s)] for s in (True, False))
    expected = torch.cat([pairs(g).flatten() for g in dense]).square().sum().sqrt()

    assert sparse[0].is_sparse
    assert not sparse[0].is_coalesced()
    assert norm(sparse).item() == pytest.approx(expected.item(), rel=1e-12)
    assert norm(dense).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_inner_product_is_that_of_all_real_numbers_in_them():
    for sparse, dense in zip(embedded(sparse=True), embedded(sparse=False), strict=True):
        other = torch.ones_like(dense.grad) * (1 + 2j if dense.is_complex() else 3)
        expected = (pairs(dense.grad) * pairs(other)).sum().item()

        assert inner_product(sparse.grad, other).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("most", [0.1, 1e6])
def test_clipping_is_that_of_dense_gradients(most):
    sparse, dense = embedded(sparse=True), embedded(sparse=False)

    clip(sparse, most)
    clip(dense, most)

    whole = torch.cat([pairs(p.grad).flatten() for p in dense])
    assert whole.norm().item() == pytest.approx(most, rel=1e-4) or most == 1e6
    for one, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(one.grad.to_dense(), other.grad, rtol=1e-12, atol=0)


class Bag(nn.Module):
    """The mean of the embeddings of an example's words."""

    def __init__(self, sparse: bool = True) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 3)
        self.double()

    def forward(self, words):
        return self.last(self.table(words).mean(dim=1))


class Words(Task):
    """40 examples of three words in three classes."""

    def __init__(self) -> None:
        labels = Data().train[1]
        words = torch.randint(9, (40, 3), generator=torch.Generator().manual_seed(1))
        super().__init__(**vars(Task.classification((words, labels), (words, labels))))


def test_a_run_with_a_sparse_embedding_trains_like_a_loop_with_a_dense_one(tmp_path):
    config = tiny(tmp_path, steps=20, clip_norm=0.2, warmup=0, schedule="constant")
    config = replace(config, model={"_target_": f"{__name__}.Bag"}, data={"_target_": f"{__name__}.Words"})
    session = assembly.assemble(config, assembly.build_data(config, assembly.prepare_process(config)))
    plain = Bag(sparse=False)
    plain.load_state_dict(session.state.model.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=config.lr, momentum=0.9)

    list(session.train())
    words, labels = Words().train
    for step in range(20):
        chosen = row(40, config.seed, 4 * step, 4)
        optimizer.zero_grad()
        F.cross_entropy(plain(words[chosen]), labels[chosen]).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.2)
        optimizer.step()

    assert session.state.model.table.weight.grad.is_sparse
    for one, other in zip(session.state.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
