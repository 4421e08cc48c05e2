"""The order of the data is a function of the seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.training import batches as module
from batchlab.training.batches import Batches, permutation, row


def flat(data, micro_batch_sizes, total, seed=3):
    """The examples in the order they are handed out."""
    handed = [m[0] for step in Batches(data, micro_batch_sizes=micro_batch_sizes, seed=seed, total=total) for m in step]
    return torch.cat(handed).tolist()


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 50), data=st.data(), epochs=st.integers(1, 4))
def test_every_batch_size_and_micro_batch_size_sees_the_same_row(n, data, epochs):
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


def test_another_seed_is_another_order_and_the_global_generator_has_no_say():
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
    monkeypatch.setattr(module, "GATHER_BYTES", 1)
    assert flat(data, [4, 3], 70) == many


def test_batches_are_exact_and_straddle_epochs():
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
def test_going_on_hands_out_what_was_left_at_the_same_places_in_memory(micro_batch_sizes, monkeypatch):
    monkeypatch.setattr(module, "GATHER_BYTES", 200)  # several steps a piece
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
