"""What a checkpoint holds of a model in addition to its state_dict is equal when it is read into a new model."""

import collections
import io
import random

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.training.passes.module_state import captured, digests, make_buffers_fit, restored

CPU = torch.device("cpu")
Pair = collections.namedtuple("Pair", "number tensor")


class Keeps(nn.Module):
    """Attributes of every kind."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("bank", torch.zeros(1))
        self.number, self.text, self.nothing, self.z, self.scalar = 1, "a", None, 1j, np.float32(1)
        self.numbers, self.names, self.fixed = [1, [2.5]], {"b", "a"}, (1, 2)
        self.pair = Pair(0, torch.zeros(2))
        self.counts = collections.Counter(a=1)
        self.mixed = {"layer": self.layer, "calls": 0, ("not", "plain"): 1}
        self.array = np.zeros(3)
        self.shared = self.other = torch.zeros(2)
        self.streams = [random.Random(1), np.random.default_rng(2), np.random.RandomState(3), torch.Generator()]
        self.weights = [self.layer.weight]

    def change(self):
        self.number, self.text, self.nothing, self.z, self.scalar = 2, "b", torch.ones(2), 2 - 1j, np.float32(2)
        self.numbers[1].append(float("nan"))
        self.names.add("c")
        self.fixed = (3, 4, 5)
        self.pair = Pair(7, torch.full((2,), 7.0))
        self.counts["z"] += 3
        self.mixed["calls"] = 9
        self.array[1] = 5
        self.shared = self.shared + 1  # no longer `other`
        self.unknown = collections.OrderedDict(a=1)  # cannot be made again, as its class is not known
        self.late = collections.deque([torch.ones(1), 3], maxlen=2)
        self.bank = torch.arange(3.0)
        self.drawn()
        self.layer.eval()
        self.layer.bias.requires_grad_(False)

    def drawn(self):
        python, numpy, old, of_torch = self.streams
        return python.gauss(0, 1), numpy.normal(), old.rand(), torch.rand((), generator=of_torch).item()


def saved(model, built):
    content = {"model": model.state_dict(), **captured(model, model.state_dict(), built)}
    written = io.BytesIO()
    torch.save(content, written)
    written.seek(0)
    return torch.load(written, weights_only=True)


def resumed(content, model=None):
    model = model or Keeps()
    make_buffers_fit(model, content, CPU)
    model.load_state_dict(content["model"])
    restored(model, content, CPU)
    return model


@pytest.fixture
def before():
    model = Keeps()
    built = digests(model)
    model.change()
    return model, saved(model, built)


def test_everything_that_has_changed_comes_back(before):
    model, content = before

    found = resumed(content)

    assert (found.number, found.text, found.z, found.scalar) == (2, "b", 2 - 1j, 2)
    assert type(found.scalar) is np.float32
    assert torch.equal(found.nothing, torch.ones(2))
    assert str(found.numbers) == "[1, [2.5, nan]]"
    assert (found.names, found.fixed) == ({"a", "b", "c"}, (3, 4, 5))
    assert type(found.pair) is Pair
    assert (found.pair.number, found.pair.tensor.tolist()) == (7, [7, 7])
    assert found.counts == collections.Counter(a=1, z=3)
    assert found.array.tolist() == [0, 5, 0]
    assert (found.late.maxlen, found.late[0].item(), found.late[1]) == (2, 1, 3)
    assert torch.equal(found.bank, torch.arange(3.0))
    assert found.drawn() == model.drawn()
    assert (found.layer.training, found.training) == (False, True)
    assert [p.requires_grad for p in found.parameters()] == [True, False]


def test_what_cannot_be_saved_stays_as_it_was_built(before):
    found = resumed(before[1])

    assert found.mixed == {"layer": found.layer, "calls": 9, ("not", "plain"): 1}
    assert found.weights[0] is found.layer.weight
    assert not hasattr(found, "unknown")


def test_two_attributes_that_were_one_tensor_have_their_own_values(before):
    found = resumed(before[1])

    assert found.shared.tolist() == [1, 1]
    assert found.other.tolist() == [0, 0]


def test_what_has_not_changed_is_not_saved_so_that_changed_code_takes_effect():
    model = Keeps()
    content = saved(model, digests(model))
    changed = Keeps()
    changed.number, changed.text = 5, "edited"

    assert content["attributes"] == {}
    assert resumed(content, changed).number == 5


def test_a_tensor_that_others_hold_is_filled_in_place(before):
    fresh = Keeps()
    view, entries = fresh.pair.tensor, fresh.numbers

    found = resumed(before[1], fresh)

    assert found.pair.tensor is view
    assert found.numbers is entries


def test_an_older_checkpoint_has_buffers_only():
    content = {"model": Keeps().state_dict(), "buffers": {}}

    assert resumed(content).number == 1
