"""Equal runs are equal, also for a model that draws from Python's and NumPy's random numbers, or draws when evaluated.

The oracle is a second run with the same seed, bit for bit, or the value of a validation computed by hand.
"""

import itertools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torture.tiny import stop_at, tiny

from batchlab.instruments.validation import Validation
from batchlab.training import assembly, checkpoint
from batchlab.training.data.batches import stream_seed
from batchlab.training.devices.cpu import CpuDevice


class Draws(nn.Module):
    """Its weights and its forward pass draw from all global generators."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.gain = random.random() + np.random.rand()

    def forward(self, x):
        if self.training:
            x = x * (1 + 0.1 * random.random() + 0.1 * np.random.rand() + 0.1 * torch.rand(()))
        return self.last(torch.relu(self.first(x))) * self.gain


class Variational(nn.Module):
    """Draws its hidden values, in eval mode too."""

    def __init__(self, source="torch"):
        super().__init__()
        self.first, self.last, self.source = nn.Linear(6, 8), nn.Linear(8, 3), source

    def forward(self, x):
        hidden = self.first(x)
        draw = {"torch": torch.randn_like, "numpy": of_numpy, "python": of_python}[self.source]
        return self.last(hidden + draw(hidden))


def of_numpy(like):
    return torch.from_numpy(np.random.randn(*like.shape)).to(like)


def of_python(like):
    return torch.tensor([random.gauss(0, 1) for _ in range(like.numel())]).view(like.shape)


def session_of(tmp_path, model, *, every=8, notes=None, **changes):
    options = {"source": changes.pop("source")} if "source" in changes else {}
    config = tiny(tmp_path, model={"_target_": f"test_equal_runs.{model.__name__}", **options}, **changes)
    validation = Validation(eval_every=every, eval_batch_size=6)
    validation.instrument_name = "validation"
    note = (lambda text: None) if notes is None else notes.append
    return assembly.assemble(config, assembly.build_data(config, CpuDevice()), lambda *_: [validation], note=note)


def disturb(seed):
    """As another process would start."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def result(session):
    found = [(m.name, m.step, m.value) for m in session.train()]
    return found, [value.clone() for value in session.state.model.state_dict().values()]


def equal(one, other):
    return one[0] == other[0] and all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))


def test_two_runs_with_one_seed_are_equal_whatever_the_process_has_drawn_before(tmp_path):
    disturb(1)
    one = result(session_of(tmp_path, Draws))
    disturb(2)
    other = result(session_of(tmp_path, Draws))
    another_seed = result(session_of(tmp_path, Draws, seed=5))

    assert equal(one, other)
    assert not equal(one, another_seed)


@pytest.mark.parametrize("model", [Draws, Variational])
def test_validations_do_not_change_what_training_draws(tmp_path, model):
    often, seldom = (result(session_of(tmp_path, model, every=every)) for every in (4, 40))

    assert all(torch.equal(a, b) for a, b in zip(often[1], seldom[1], strict=True))
    assert len(often[0]) > len(seldom[0])


@pytest.mark.parametrize("model", [Draws, Variational])
def test_a_resumed_run_continues_with_the_same_numbers(tmp_path, model):
    whole = result(session_of(tmp_path, model))
    notes = []
    begun = session_of(tmp_path, model, notes=notes)
    found = [(m.name, m.step, m.value) for m in begun.train(stopping=stop_at(5))]
    content = checkpoint.capture(begun.state, begun.instruments, run_id="r", journal_offset=0, journal_digest="")
    disturb(3)
    resumed = session_of(tmp_path, model, notes=notes)
    checkpoint.restore(checkpoint.read(content), resumed.state, resumed.instruments)

    later, trained = result(resumed)

    assert equal(([*found, *later], trained), whole)
    assert len(notes) == (model is Variational)


@pytest.mark.parametrize("source", ["torch", "numpy", "python"])
def test_a_model_that_draws_in_eval_mode_is_validated_under_a_fixed_seed_for_each_batch(tmp_path, source):
    notes = []
    session = session_of(tmp_path, Variational, source=source, notes=notes, lr=1e-30)
    losses = [m.value for m in session.train() if m.name == "val/loss"]

    model, (inputs, labels) = session.state.model.eval(), session.state.val
    expected = 0.0
    for position, start in enumerate(range(0, len(inputs), 6)):
        seed = stream_seed("evaluation", position)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        batch = slice(start, start + 6)
        expected += F.cross_entropy(model(inputs[batch]), labels[batch], reduction="none").double().sum().item()
    assert losses == [pytest.approx(expected / len(inputs), rel=1e-7)] * 6  # the weights stay as they are
    assert notes == [
        "evaluating draws random numbers: each validation seeds them by the position of the batch, so all validations "
        "use the same ones"
    ]


def test_a_model_that_draws_nothing_in_eval_mode_is_not_seeded(tmp_path, monkeypatch):
    from batchlab.training.passes import evaluation_batches

    seeds = itertools.count()
    monkeypatch.setattr(evaluation_batches, "seed_everything", lambda *_: next(seeds))

    result(session_of(tmp_path, Draws))

    assert next(seeds) == 0
