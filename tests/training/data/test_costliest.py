"""The most expensive examples of a set, by the task's cost or by what can be seen."""

import itertools

import pytest
import torch
from tree_sets import Graph, Sequences, padded

from batchlab.errors import BadRequest
from batchlab.training.data import costliest as costs
from batchlab.training.data.costliest import costliest
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice

CPU = CpuDevice()
LENGTHS = [1 + i % 6 for i in range(23)]


def test_the_longest_of_a_collated_set_are_found_by_their_bytes():
    for data in (prepare_set(Sequences(), CPU, name="train", collate=padded), streamed(Sequences())):
        assert {LENGTHS[i] for i in costliest(data, 3).tolist()} == {6}
        assert [LENGTHS[i] for i in costliest(data, 5).tolist()] == [6, 6, 6, 5, 5]


def streamed(dataset):
    return Streamed(dataset, CPU, name="train", collate=padded)


def test_the_tasks_cost_is_of_an_example_and_takes_precedence():
    x, y = torch.randn(9, 3), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5])
    for data in ((x, y), HostRows((x, y), CPU), prepare_set((x, y), CPU, name="train", collate=list)):
        assert costliest(data, 3, lambda example: int(example[1])).tolist()[:2] == [5, 7]
        assert costliest(data, 9, lambda example: -float(example[1]))[-1] == 5
    assert {LENGTHS[i] for i in costliest(streamed(Sequences()), 4, lambda one: -len(one[0])).tolist()} == {1}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("padding", [0, -100])
def test_padded_sequences_are_ranked_by_their_length_without_padding(side, padding):
    lengths = torch.tensor([2, 7, 3, 16, 5, 15])
    tokens = torch.randint(1, 99, (6, 16), generator=torch.Generator().manual_seed(0))
    place = torch.arange(16)[None].expand(6, -1)
    mask = place < lengths[:, None] if side == "right" else place >= 16 - lengths[:, None]
    data = {"ids": tokens.masked_fill(~mask, padding), "mask": mask.long(), "y": torch.arange(6)}

    assert costliest(data, 6).tolist() == lengths.argsort(descending=True).tolist()


def test_examples_are_repeated_if_there_are_fewer():
    assert costliest((torch.tensor([1.0, 3.0, 2.0]),), 5, lambda example: float(example[0])).tolist() == [1, 2, 0, 1, 2]


def test_a_scan_ends_in_time_and_covers_the_set():
    ticks = itertools.count(0.0, costs.SCAN_SECONDS / 100)
    read = []

    class Slow(Sequences):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    chosen = costliest(streamed(Slow(100_000)), 8, clock=lambda: next(ticks))

    assert {LENGTHS[int(i) % 6] for i in chosen} == {6}
    assert 90 < len(read) < 110
    assert min(read) < 10_000 < 90_000 < max(read)


def test_a_librarys_own_example_is_measured_whole():
    graphs = [Graph(torch.zeros(size, 2), torch.zeros(size), torch.zeros(1)) for size in (3, 900, 40)]

    assert costliest(prepare_set(graphs, CPU, name="train", collate=list), 2).tolist() == [1, 2]


def test_a_cost_that_is_no_number_is_refused():
    with pytest.raises(BadRequest, match="the task's cost gave nan for an example"):
        costliest((torch.zeros(3),), 1, lambda example: float("nan"))
