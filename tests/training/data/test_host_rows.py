"""Tensors that do not fit on the device are gathered on the host, with the same batches as on the device."""

import pytest
import torch
from torture.comparison import came_to, differences
from torture.kth_call import quick
from torture.tiny import folder_of, stop_at, tiny, train

from batchlab.training.data.batches import Batches, gather, length, slices, subset
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.trees import tensors
from batchlab.training.devices.cpu import CpuDevice


class Small(CpuDevice):
    """A device with 1,000 bytes of its own memory."""

    gather_bytes = 200  # several steps of 24 bytes per example

    def total_bytes(self):
        return 1000

    def holds(self, tensor):
        return False


SMALL = Small()
HELD = (torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40))


@pytest.fixture
def rows():
    found = prepare_set(HELD, SMALL, name="train", workers=2)
    assert isinstance(found, HostRows)
    return found


def handed(data, micro_batch_sizes, position=0, augment=None):
    """Every micro-batch of two and a half epochs: its values and storage offsets."""
    size = sum(micro_batch_sizes)
    batches = Batches(
        data,
        micro_batch_sizes=micro_batch_sizes,
        seed=3,
        total=100 // size * size,
        position=position,
        augment=augment,
        device=SMALL,
    )
    return [[[(t.tolist(), t.storage_offset()) for t in tensors(m)] for m in step] for step in batches]


@pytest.mark.parametrize("micro_batch_sizes", [[1], [3], [2, 1], [7], [16], [30, 10]])
def test_batches_are_those_of_tensors_that_are_held_wherever_a_run_is_resumed(rows, micro_batch_sizes):
    whole, size = handed(HELD, micro_batch_sizes), sum(micro_batch_sizes)

    assert len(whole) == 100 // size
    for steps in range(0, len(whole) + 1, max(1, len(whole) // 9)):
        assert handed(rows, micro_batch_sizes, steps * size) == whole[steps:]


def test_an_augmentation_gets_the_same_draws(rows):
    def augment(batch, draws):
        return batch[0], draws

    assert handed(rows, [3, 2], augment=augment) == handed(HELD, [3, 2], augment=augment)
    assert handed(rows, [3, 2], 35, augment=augment) == handed(HELD, [3, 2], 35, augment=augment)


def test_many_small_batches_are_gathered_at_once_and_a_large_one_alone(rows, monkeypatch):
    gathered = []
    monkeypatch.setattr(rows, "gather", lambda index: gathered.append(len(index)) or gather(HELD, index))

    handed(rows, [2])
    handed(rows, [10])
    handed(rows, [5, 5])

    assert gathered[:12] == [8] * 12  # 8 of 24 bytes are the most below 200, in whole batches of 2
    assert gathered[13:23] == [10] * 10
    assert gathered[23:] == [5] * 20  # accumulating: one micro-batch at a time


def test_instruments_and_validation_can_read_them(rows):
    index = torch.tensor([20, 3, 3, 7])

    for found, expected in (
        ([gather(rows, index)], [gather(HELD, index)]),
        (slices(rows, 15), slices(HELD, 15)),
        (slices(rows, 100), slices(HELD, 100)),
        (slices(subset(rows, index), 3), slices(gather(HELD, index), 3)),
        ([gather(subset(rows, index), torch.tensor([3, 0]))], [gather(HELD, torch.tensor([7, 20]))]),
        (slices(subset(subset(rows, index), torch.tensor([3, 0])), 1), slices(gather(HELD, torch.tensor([7, 20])), 1)),
    ):
        for (x, y), (held_x, held_y) in zip(found, expected, strict=True):
            assert torch.equal(x, held_x)
            assert torch.equal(y, held_y)
    assert length(rows) == 40
    assert length(subset(rows, index)) == 4


def test_a_dict_stays_a_dict_and_what_has_room_is_held(monkeypatch):
    data = dict(zip("xy", HELD, strict=True))

    assert gather(prepare_set(data, SMALL, name="train"), torch.tensor([5]))["y"].tolist() == [5]
    assert prepare_set(data, CpuDevice(), name="train")["x"] is HELD[0]
    monkeypatch.setattr(Small, "total_bytes", lambda device: 2000)  # half of it is 1,000, and the set has 960
    assert prepare_set(HELD, SMALL, name="train")[0] is HELD[0]


@pytest.mark.parametrize("data", ["torture.tiny.Data", "streamed_sets.Augmented"])
def test_a_run_on_them_comes_to_the_same_bits_as_one_on_held_tensors_also_when_it_is_resumed(
    data, tmp_path, monkeypatch
):
    def config(name):
        return tiny(tmp_path / name, data={"_target_": data}, batch_size=6, accumulate=2)

    with quick():
        train(config("held"))
        monkeypatch.setattr(CpuDevice, "total_bytes", lambda device: 1000)
        monkeypatch.setattr(CpuDevice, "holds", lambda device, tensor: False)
        requested, rows_of = [], HostRows.row
        monkeypatch.setattr(HostRows, "row", lambda rows, *args: requested.append(args) or rows_of(rows, *args))
        train(config("whole"))
        train(config("stopped"), stopping=stop_at(3))
        train(config("stopped"))

    expected = came_to(folder_of(config("held")))
    assert requested
    assert expected["record"]["status"] == "completed"
    assert differences(came_to(folder_of(config("whole"))), expected) == []
    assert differences(came_to(folder_of(config("stopped"))), expected) == []


def test_a_set_in_both_places_stays_on_the_host():
    """Labels that were made on the device, and images that do not fit on it."""
    brought_back = []

    class There(torch.Tensor):
        def cpu(self):
            brought_back.append(len(self))
            return self.as_subclass(torch.Tensor)

    class WithLabels(Small):
        def holds(self, tensor):
            return isinstance(tensor, There)

    rows = prepare_set((HELD[0], HELD[1].as_subclass(There)), WithLabels(), name="train")

    assert isinstance(rows, HostRows)
    assert brought_back == [40]
    assert [type(t) for t in tensors(rows.data)] == [torch.Tensor, torch.Tensor]
