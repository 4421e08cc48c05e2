"""Accumulating keeps one micro-batch's inputs in memory at a time, on any device; and computes the same."""

import weakref

import pytest
import torch
from simulated_device import simulated_cuda
from torch.utils.data import TensorDataset

from batchlab import Task
from batchlab.training.data.batches import Batches, OneByOne, split
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.streaming import Streamed
from batchlab.training.data.trees import tensors
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.named import device_named
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager

MIB = 2**20
N, FEATURES = 60, 16


class Narrow(CpuDevice):
    """Gathers 400 bytes at once: five of the examples below, which have 72 bytes."""

    gather_bytes = 400


NARROW = Narrow()
HELD = (torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3)
SETS = {
    "held": lambda: HELD,
    "on the host": lambda: HostRows(HELD, NARROW),
    "streamed": lambda: Streamed(TensorDataset(*HELD), NARROW, name="train"),
    "read by two": lambda: Streamed(TensorDataset(*HELD), NARROW, name="train", workers=2),
}
SIZES = {"even": [8, 8, 8], "ragged": [7, 7, 7, 2], "two of them at once": [2] * 9, "of one": [1] * 12}


def batches_of(data, sizes, *, device=NARROW, position=0, augment=None):
    total = 120 // sum(sizes) * sum(sizes)
    return Batches(
        data, micro_batch_sizes=sizes, seed=3, total=total, position=position, augment=augment, device=device
    )


def numbers(micro_batches):
    return [[t.tolist() for t in tensors(batch)] for batch in micro_batches]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("data", SETS.values(), ids=SETS)
def test_they_equal_those_of_a_whole_step_and_only_one_is_in_memory(data, sizes):
    def augment(batch, draws):
        return batch[0] + draws[:, None] % 7, batch[1]

    whole = [numbers(step) for step in batches_of(HELD, sizes, device=CpuDevice(), augment=augment)]
    batch_size, at_once = sum(sizes), max(max(sizes), 5)

    parts = batches_of(data(), sizes, augment=augment)
    assert numbers(parts.first()) == whole[0]
    for step, expected in zip(parts, whole, strict=True):
        assert isinstance(step, OneByOne)
        assert step.examples == batch_size
        seen, alive = [], []
        for batch in step:
            seen.append([t.tolist() for t in tensors(batch)])
            held = {id(s): s.nbytes() for s in (ref() for ref in alive) if s is not None}
            storage = batch[0].untyped_storage()
            held[id(storage)] = storage.nbytes()
            assert sum(held.values()) <= 4 * FEATURES * at_once
            alive.append(weakref.ref(storage))
            del batch, storage, held
        assert seen == expected

    resumed = batches_of(data(), sizes, position=2 * batch_size, augment=augment)
    assert [numbers(step) for step in resumed] == whole[2:]


def test_a_step_that_was_not_iterated_to_its_end_does_not_shift_the_next():
    whole = [numbers(step) for step in batches_of(HELD, [8, 8, 8], device=CpuDevice())]
    steps = iter(batches_of(SETS["streamed"](), [8, 8, 8]))

    assert numbers([next(iter(next(steps)))]) == whole[0][:1]
    assert numbers(next(steps)) == whole[1]


def test_a_step_that_fits_into_one_gather_is_loaded_whole():
    assert isinstance(batches_of(HELD, [3, 2]).first(), tuple)
    assert isinstance(next(iter(batches_of(HELD, [3, 2]))), tuple)
    assert isinstance(batches_of(HELD, [30]).first(), tuple)  # it is one micro-batch


def trained(micro_batches, count=None):
    """The weights after a step of `micro_batches`, and its outcome."""
    torch.manual_seed(0)
    model = torch.nn.Linear(FEATURES, 3)
    task = Task.classification(HELD, HELD, **({"count": count} if count else {}))
    step = Eager(Losses(model, task, Precision("fp32", CpuDevice())), torch.optim.SGD(model.parameters(), lr=0.1))
    outcome = step(micro_batches)
    return model.weight.detach(), (outcome.loss_sum.item(), outcome.count.item(), outcome.examples)


@pytest.mark.parametrize("count", [None, lambda batch: int((batch[1] > 0).sum())], ids=["examples", "its own"])
def test_a_step_is_the_same_bit_for_bit(count):
    (whole,) = (next(iter(batches_of(HELD, [23], device=CpuDevice()))),)
    copies = [tuple(t.clone() for t in part) for part in split(whole[0], [7, 7, 7, 2])]

    weights, outcome = trained(next(iter(batches_of(HELD, [7, 7, 7, 2]))), count)
    expected, expected_outcome = trained(copies, count)

    assert torch.equal(weights, expected)
    assert outcome == expected_outcome


def test_a_step_on_a_gpu_holds_the_inputs_of_one_micro_batch():
    with simulated_cuda(total_bytes=4000 * MIB) as cuda:
        device = device_named("cuda")
        device.prepare(deterministic=False)
        # 10 MiB per example, and a model that saves nothing else: only the inputs take memory.
        data = tuple(t.to(device.torch_device) for t in (torch.zeros(8, 10 * MIB // 4), torch.zeros(8, 1)))
        model = torch.nn.Linear(4, 1).to(device.torch_device)

        def forward(model, batch):
            return model(batch[0][:, :4])

        task = Task(train=data, val=data, forward=forward, loss=lambda out, batch: (out - batch[1]).square().flatten())
        step = Eager(Losses(model, task, Precision("fp32", device)), torch.optim.SGD(model.parameters(), lr=0.1))
        batches = Batches(data, micro_batch_sizes=[2, 2, 2, 2], seed=0, total=16, device=device)
        for micro_batches in batches:
            before = cuda.gpus[0].memory.allocated
            cuda.gpus[0].memory.reset_peaks()
            step(micro_batches)
            taken = cuda.gpus[0].memory.peak_allocated - before
            assert 20 * MIB <= taken < 21 * MIB
        assert batches.position == 16
