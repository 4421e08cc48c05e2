"""The data order depends on the seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset
from torture.comparison import came_to, differences
from torture.kth_call import quick
from torture.tiny import folder_of, stop_at, tiny, train

from batchlab.errors import BadRequest
from batchlab.training.data import batches as module
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import permutation, row
from batchlab.training.data.streaming import Streamed
from batchlab.training.devices.cpu import CpuDevice


def flat(data, micro_batch_sizes, total, seed=3):
    """The examples in the order in which they are yielded."""
    handed = [m[0] for step in Batches(data, micro_batch_sizes=micro_batch_sizes, seed=seed, total=total) for m in step]
    return torch.cat(handed).tolist()


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 50), data=st.data(), epochs=st.integers(1, 4))
def test_every_batch_size_and_micro_batch_size_has_the_same_data_order(n, data, epochs):
    examples = (torch.arange(n),)
    reference = torch.cat([permutation(n, 3, epoch) for epoch in range(epochs)]).tolist()
    batch_size = data.draw(st.integers(1, n))
    micro = data.draw(st.integers(1, batch_size))
    sizes = [micro] * (batch_size // micro) + ([batch_size % micro] if batch_size % micro else [])
    total = epochs * n // batch_size * batch_size

    assert flat(examples, sizes, total) == reference[:total]


def test_each_epoch_holds_every_example_once_and_in_another_order():
    epochs = [row(100, 0, epoch * 100, 100).tolist() for epoch in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_order_depends_on_the_seed_and_not_on_the_global_generator():
    torch.manual_seed(1)
    first = permutation(100, 0, 0)
    torch.manual_seed(2)
    assert torch.equal(first, permutation(100, 0, 0))
    assert not torch.equal(first, permutation(100, 1, 0))
    before = torch.get_rng_state()
    list(Batches((torch.arange(10),), micro_batch_sizes=[5], seed=0, total=100))
    assert torch.equal(before, torch.get_rng_state())


def test_how_many_batches_are_gathered_at_once_changes_nothing(monkeypatch):
    data = (torch.arange(30),)
    many = flat(data, [4, 3], 70)
    monkeypatch.setattr(CpuDevice, "gather_bytes", 1)
    assert flat(data, [4, 3], 70) == many


def test_batches_are_exact_and_cross_epochs():
    steps = list(Batches((torch.arange(10),), micro_batch_sizes=[3, 1], seed=0, total=20))
    assert [[len(m[0]) for m in step] for step in steps] == [[3, 1]] * 5
    assert sorted(torch.cat([m[0] for step in steps for m in step]).tolist()) == sorted([*range(10), *range(10)])


@pytest.mark.parametrize("kind", [tuple, dict])
def test_inputs_stay_with_their_labels(kind):
    inputs, labels = torch.arange(20), torch.arange(20) * 10
    data = (inputs, labels) if kind is tuple else {"x": inputs, "y": labels}
    for step in Batches(data, micro_batch_sizes=[3, 2], seed=0, total=40):
        for micro in step:
            x, y = micro if kind is tuple else (micro["x"], micro["y"])
            assert torch.equal(x * 10, y)


@pytest.mark.parametrize("micro_batch_sizes", [[1], [3], [2, 1], [7]])
def test_resuming_yields_the_remaining_batches_at_the_same_places_in_memory(micro_batch_sizes, monkeypatch):
    monkeypatch.setattr(CpuDevice, "gather_bytes", 200)  # several steps per piece
    monkeypatch.setattr(module, "INDICES_AT_ONCE", 50)
    data = (torch.arange(20.0)[:, None].repeat(1, 5),)
    size = sum(micro_batch_sizes)
    total = size * 21

    def handed(position):
        row = Batches(data, micro_batch_sizes=micro_batch_sizes, seed=3, total=total, position=position)
        return [[(m[0].tolist(), m[0].storage_offset()) for m in step] for step in row]

    whole = handed(0)
    assert len(whole) == 21
    for step in range(22):
        assert handed(step * size) == whole[step:]


class Sending(CpuDevice):
    """Records what is sent to it."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def copies(self):
        return self

    def send(self, tensors):
        self.sent += tensors
        return tensors


def test_the_data_order_is_sent_with_the_devices_copies(monkeypatch):
    monkeypatch.setattr(module, "INDICES_AT_ONCE", 50)
    device = Sending()
    data = (torch.zeros(30, 2000),)  # 8,000 bytes each: two batches per piece

    list(Batches(data, micro_batch_sizes=[4, 2], seed=3, total=90, device=device))

    assert [len(index) for index in device.sent] == [48, 42]
    assert torch.equal(torch.cat(device.sent), row(30, 3, 0, 90))


def kept_draws(position=0, micro_batch_sizes=(4,), seed=3, stream=False):
    """The examples and draws that an augmentation receives over 60 examples."""
    examples = torch.arange(23)
    data = Streamed(TensorDataset(examples), CpuDevice(), name="train") if stream else (examples,)
    batches = Batches(
        data,
        micro_batch_sizes=micro_batch_sizes,
        seed=seed,
        total=60,
        position=position,
        augment=lambda batch, draws: (batch[0], draws),
    )
    first = [pair for micro in batches.first() for pair in zip(*(t.tolist() for t in micro), strict=True)]
    kept = [pair for step in batches for micro in step for pair in zip(*(t.tolist() for t in micro), strict=True)]
    assert kept[: len(first)] == first
    return kept


def test_an_augmentations_draws_depend_on_the_seed_and_the_data_order_alone(monkeypatch):
    whole = kept_draws()

    assert [example for example, _ in whole] == row(23, 3, 0, 60).tolist()
    assert len({draw for _, draw in whole}) == 60
    assert kept_draws(micro_batch_sizes=(1,)) == kept_draws(micro_batch_sizes=(7, 5)) == whole
    assert kept_draws(position=24, micro_batch_sizes=(12,)) == whole[24:]
    assert kept_draws(stream=True) == kept_draws(stream=True, micro_batch_sizes=(5,)) == whole
    monkeypatch.setattr(CpuDevice, "gather_bytes", 1)
    assert kept_draws(position=4) == whole[4:]
    assert not {draw for _, draw in kept_draws(seed=4)} & {draw for _, draw in whole}


def test_an_augmentation_that_loses_examples_is_refused():
    batches = Batches(
        (torch.arange(8),), micro_batch_sizes=[4], seed=0, total=8, augment=lambda batch, draws: (batch[0][1:],)
    )
    with pytest.raises(BadRequest, match=r"the task's augment returned 7 examples for 8: it must keep their number"):
        next(iter(batches))


def test_training_alone_sees_the_augmentation(tmp_path):
    with quick():
        train(tiny(tmp_path / "plain"))
        train(tiny(tmp_path / "augmented", data={"_target_": "streamed_sets.Augmented"}))
        for stop in (stop_at(3), stop_at(99)):
            train(tiny(tmp_path / "stopped", data={"_target_": "streamed_sets.Augmented"}), stopping=stop)
    plain, augmented, stopped = (
        came_to(folder_of(tiny(tmp_path / name))) for name in ("plain", "augmented", "stopped")
    )

    assert differences(stopped, augmented) == []
    assert [m for m in augmented["metrics"] if m[2] == 0] == [m for m in plain["metrics"] if m[2] == 0]
    assert augmented["record"]["weights_fingerprint"] != plain["record"]["weights_fingerprint"]
