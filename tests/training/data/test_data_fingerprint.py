"""The fingerprint of the data: SHA-256 of the same bytes on any device, computed where they are cheap to read."""

import hashlib

import pytest
import torch
from streamed_sets import Noisy
from torch.utils.data import TensorDataset
from torture.tiny import tiny

from batchlab import Task
from batchlab.training import assembly
from batchlab.training.assembly import build_known_data
from batchlab.training.data import fingerprints
from batchlab.training.data.fingerprints import data_fingerprint
from batchlab.training.data.host_rows import HostRows
from batchlab.training.data.residence import prepare_set
from batchlab.training.data.trees import tensors
from batchlab.training.devices.cpu import CpuDevice

TRAIN = (torch.arange(60.0).view(20, 3), torch.arange(20))
VAL = (torch.arange(30.0).view(10, 3) / 7, torch.arange(10))


def by_hand(*data):
    digest = hashlib.sha256()
    for tensor in data:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("at_once", [1, 25, 100, 10**9])
def test_it_is_the_hash_of_every_number_however_many_are_looked_at_at_once(at_once, monkeypatch):
    monkeypatch.setattr(fingerprints, "HASHED_BYTES", at_once)

    assert data_fingerprint(TRAIN, VAL) == by_hand(*TRAIN, *VAL) == "1d61844e920a294e"
    assert data_fingerprint((TRAIN[0].T,)) == by_hand(TRAIN[0].T.contiguous())
    assert data_fingerprint((torch.zeros(0, 3), torch.zeros(4, 0))) == by_hand(torch.zeros(0, 3), torch.zeros(4, 0))


class OnTheDevice(torch.Tensor):
    """A tensor on a device; copies back to the host are counted."""

    brought_back = 0

    def cpu(self):
        OnTheDevice.brought_back += self.nbytes
        return self.as_subclass(torch.Tensor)


class FarAway(CpuDevice):
    """A device with its own memory."""

    def total_bytes(self):
        return 10**6

    def holds(self, tensor):
        return isinstance(tensor, OnTheDevice)


@pytest.fixture
def far_away(monkeypatch):
    monkeypatch.setattr(OnTheDevice, "brought_back", 0)

    def on_device(read, device):
        return tuple(t.as_subclass(OnTheDevice) for t in tensors(read))

    monkeypatch.setattr(assembly, "on_device", on_device)
    return FarAway()


@pytest.mark.parametrize("kind", [tuple, TensorDataset], ids=["tensors", "Dataset"])
def test_no_data_is_copied_back_from_the_device_for_it(kind, far_away, tmp_path, monkeypatch):
    given = [kind(data) if kind is tuple else kind(*data) for data in (TRAIN, VAL)]
    task = Task(train=given[0], val=given[1], loss=lambda outputs, batch: outputs)
    monkeypatch.setattr(assembly, "build_task", lambda config, device: task)

    data = build_known_data(tiny(tmp_path), far_away)

    assert all(far_away.holds(t) for t in (*data.train, *data.val))
    assert OnTheDevice.brought_back == 0
    assert data.fingerprint == by_hand(*TRAIN, *VAL)


def test_data_made_on_the_device_has_the_same_fingerprint(far_away):
    made = tuple(t.as_subclass(OnTheDevice) for t in TRAIN)

    assert data_fingerprint(made) == by_hand(*TRAIN)
    assert OnTheDevice.brought_back == sum(t.nbytes for t in TRAIN)


@pytest.mark.parametrize("whole_bytes", [10**9, 100])
def test_it_is_the_same_of_tensors_that_stay_on_the_host(whole_bytes, monkeypatch):
    """The free memory of a device differs between processes, which must not make the same data look changed."""
    monkeypatch.setattr(fingerprints, "HASHED_WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(fingerprints, "SAMPLED", 7)

    assert data_fingerprint(HostRows(TRAIN, CpuDevice())) == data_fingerprint(TRAIN)
    changed = TRAIN[0].index_fill(0, torch.tensor([2]), -1.0), TRAIN[1]  # 20 * 1 // 7 = 2 is hashed, 3 is not
    assert data_fingerprint(changed) != data_fingerprint(TRAIN)
    unseen = TRAIN[0].index_fill(0, torch.tensor([3]), -1.0), TRAIN[1]
    assert (data_fingerprint(unseen) == data_fingerprint(TRAIN)) is (whole_bytes == 100)
    assert data_fingerprint((TRAIN[0][:14], TRAIN[1][:14])) != data_fingerprint(TRAIN)


def test_examples_drawn_once_are_fingerprinted_as_drawn():
    val = prepare_set(Noisy(), CpuDevice(), name="val")

    assert data_fingerprint(val) == by_hand(*val)
