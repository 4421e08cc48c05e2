"""Copies on a separate stream: correct for any timing of the streams, and the host does not wait."""

import gc

import pytest
import torch
from copying_streams import SimulatedCuda

from batchlab.training.devices.cuda_copies import CudaCopies

CUDA = torch.device("cuda", 0)


@pytest.fixture
def cuda():
    return SimulatedCuda()


def values(tensor):
    return tensor.as_subclass(torch.Tensor).tolist()


def test_the_device_computes_with_what_was_sent_however_late_the_copy_is(cuda):
    copies, seen = CudaCopies(CUDA, cuda), []
    for batch in range(3):
        x, y = copies.send([cuda.host(torch.full((4,), batch)), cuda.host(torch.arange(4) + batch)])
        cuda.computing.give(lambda x=x, y=y: seen.append((values(x), values(y))))
    assert values(x) == [-1] * 4  # nothing has been copied yet

    cuda.computing.run()  # which is ahead of the copies

    assert seen == [([batch] * 4, [batch, batch + 1, batch + 2, batch + 3]) for batch in range(3)]
    assert cuda.host_waits == 0


def test_copies_do_not_wait_for_what_the_device_computes(cuda):
    copies, computed = CudaCopies(CUDA, cuda), []
    cuda.computing.give(lambda: computed.append("a long step"))
    (batch,) = copies.send([cuda.host(torch.arange(4))])

    cuda.copying.run()

    assert values(batch) == [0, 1, 2, 3]
    assert computed == []


def test_the_memory_of_a_copy_is_recorded_as_used_by_the_computing_stream(cuda):
    """Otherwise the copying stream would write the next batch into it as soon as Python releases it."""
    sent = CudaCopies(CUDA, cuda).send([cuda.host(torch.arange(4)), cuda.host(torch.arange(3))])

    assert all(tensor.allocated_on is cuda.copying for tensor in sent)
    assert all(tensor.used_on == [cuda.computing] for tensor in sent)


def test_sources_are_kept_alive_until_they_are_copied_and_no_longer(cuda):
    copies = CudaCopies(CUDA, cuda)
    (first,) = copies.send([cuda.host(torch.arange(4))])  # the test keeps no reference to the source
    gc.collect()
    assert len(copies._under_way) == 1

    cuda.copying.run()
    copies.send([cuda.host(torch.arange(4))])

    assert values(first) == [0, 1, 2, 3]
    assert len(copies._under_way) == 1


def test_rows_are_those_at_the_index_although_buffers_are_reused(cuda):
    table, labels = torch.arange(60.0).view(20, 3), torch.arange(20)
    rows = CudaCopies(CUDA, cuda).rows([cuda.host(table), cuda.host(labels)])
    orders = [
        torch.randperm(20, generator=torch.Generator().manual_seed(i))[:n] for i, n in enumerate((4, 4, 7, 2, 7, 3))
    ]

    found = [rows(order) for order in orders]
    assert cuda.host_waits == len(orders) - 2  # two buffers: a third batch waits for the copy of the first
    cuda.computing.run()

    for (x, y), order in zip(found, orders, strict=True):
        assert values(x) == table[order].tolist()
        assert values(y) == labels[order].tolist()


def test_tensors_on_the_device_are_not_sent_through_the_host(cuda):
    class OnTheDevice(torch.Tensor):
        device = CUDA

        def to(self, device, *, non_blocking):
            return self

        def record_stream(self, stream):
            pass

    tensor = torch.arange(3).as_subclass(OnTheDevice)

    assert CudaCopies(CUDA, cuda).send([tensor])[0] is tensor
