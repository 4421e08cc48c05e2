"""A task's `sampler`: its order is trained, in epochs of its length, whatever the batch size."""

import itertools

import pytest
import torch
from plain_loop import SEED, trained, trained_plainly
from torch import nn
from tree_sets import balanced, tree_task

from batchlab.errors import BadRequest
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import SampledOrder, row, stream_seed
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice

CPU = CpuDevice()


def shuffled(seed):
    return torch.randperm(23, generator=torch.Generator().manual_seed(seed))[:9]


def test_the_samplers_order_trains_to_the_weights_of_a_plain_loop_over_a_dataloader():
    task = tree_task("tuple")
    wanted = itertools.chain.from_iterable(shuffled(stream_seed(SEED, "sampler", epoch)) for epoch in range(9))

    def model():
        torch.manual_seed(3)
        return nn.Linear(4, 2, dtype=torch.float64)

    expected = trained_plainly(task, task.train, None, 7, model(), order=[int(i) for i in wanted][:56])
    for data in (prepare_set(task.train, CPU, name="train"), Streamed(task.train, CPU, name="train")):
        for one, other in zip(
            trained(task, data, 7, model(), order=SampledOrder(shuffled, 23, SEED)), expected, strict=True
        ):
            assert torch.allclose(one, other, rtol=0, atol=1e-10)


def test_the_order_depends_on_the_seed_alone():
    def seen(sizes, position=0, seed=1):
        order = SampledOrder(balanced, 23, seed)
        data = prepare_set((torch.arange(23),), CPU, name="train")
        steps = Batches(data, micro_batch_sizes=sizes, seed=seed, total=60, position=position, order=order)
        return [int(i) for step in steps for (part,) in step for i in part]

    whole = seen([1])
    before = torch.get_rng_state()
    assert seen([4, 2]) == whole
    assert seen([5], position=35) == whole[35:]
    assert seen([1], seed=2) != whole
    assert whole[:10] != whole[10:20]
    assert torch.equal(torch.get_rng_state(), before)
    assert row(23, 1, 8, 14, SampledOrder(balanced, 23, 1)).tolist() == whole[8:22]


def endless_lengths(seed, calls=itertools.count(3)):  # noqa: B008 - it is to go on over calls
    return range(next(calls))


@pytest.mark.parametrize(
    ("sampler", "line"),
    [
        (lambda seed: [0, 23], "gave 23, but the training set has 23 examples: it must give integers from 0 to 22"),
        (lambda seed: [-1], "gave -1, but"),
        (lambda seed: [], "gave no indices, but"),
        (lambda seed: [[0, 1], [2]], r"gave \[0, 1\], but"),
        (lambda seed: [0.5], "gave 0.5, but"),
        (endless_lengths, "gave 4 indices for epoch 2, and 3 for the first: give the same number"),
    ],
    ids=["too large", "negative", "none", "batches", "float", "lengths"],
)
def test_a_sampler_that_gives_no_order_is_refused(sampler, line):
    with pytest.raises(BadRequest, match=f"the task's sampler {line}"):
        row(23, 0, 0, 6, SampledOrder(sampler, 23, 0))


def test_a_sampler_that_does_not_follow_its_seed_is_refused():
    generator = torch.Generator().manual_seed(0)

    SampledOrder(balanced, 23, 0).refuse_unless_repeatable()
    with pytest.raises(BadRequest, match="gave two different orders for the same seed"):
        SampledOrder(lambda seed: torch.randperm(23, generator=generator), 23, 0).refuse_unless_repeatable()
