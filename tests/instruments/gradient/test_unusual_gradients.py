"""Instruments of the gradient for collated tasks, unequal terms, scalar losses, and optimizers with a closure."""

import pytest
import torch
import torch.nn.functional as F
from still_life import CPU, by_name, classified, run_state
from torch import nn
from tree_sets import Sequences, padded

from batchlab import Task
from batchlab.instruments.curvature.hessian import loss_surface
from batchlab.instruments.gradient.gradient_statistics import GradientStatistics
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale
from batchlab.instruments.gradient.per_example import NotPerExample
from batchlab.training.data.batches import gather
from batchlab.training.data.residence import prepare_set

N = 23


class Sums(nn.Linear):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(2, 2)

    def forward(self, steps):
        return super().forward(steps.sum(1))


def noted(state):
    notes = []
    state.note = notes.append
    return notes


def collated():
    task = Task(
        train=Sequences(N),
        val=Sequences(5),
        collate=padded,
        loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none"),
    )
    state = run_state(Sums(), task)
    state.train = prepare_set(task.train, CPU, name="train", collate=padded)
    return state


def noise(state, **changes):
    sizes = {"batch_size": 8, "micro_batch_size": 8, "eval_every": 8, "budget": 80, "seed": 0}
    return GradientNoiseScale(**{**sizes, "task": state.task, **changes})


def test_a_collated_set_has_a_noise_scale_by_micro_batches():
    state = collated()
    notes = noted(state)

    instrument = noise(state)
    seen = by_name(instrument.measure(state))

    assert instrument.method == "micro_batches"
    assert notes == [
        "instruments.noise_scale compares micro-batches instead of single examples: the task's collate makes a batch "
        "as a whole, so its gradients per example are not computed"
    ]
    steps, labels = padded([Sequences()[i] for i in range(N)])
    gradients = torch.autograd.grad(F.cross_entropy(state.model(steps), labels), list(state.model.parameters()))
    expected = sum(float(g.square().sum()) for g in gradients)
    part = seen["noise/squared_gradient_norm"]
    assert part.low < expected < part.high


def test_examples_whose_number_of_terms_differs_later_on_are_compared_by_micro_batches():
    def task():
        made = classified(n=40)
        labels = made.train[1].clone()
        labels[20] = -100  # not among the examples that are tried first
        return Task.classification((made.train[0], labels), made.val)

    for method in ("auto", "per_example"):
        state = run_state(nn.Linear(4, 3).double(), task())
        notes, instrument = noted(state), noise(state, method=method)
        if method == "per_example":
            with pytest.raises(NotPerExample, match="differ in their number of terms"):
                list(instrument.measure(state))
            continue

        seen = by_name(instrument.measure(state))

        assert instrument.method == "micro_batches"
        assert len(notes) == 1
        assert "differ in their number of terms" in notes[0]
        assert seen["noise/squared_gradient_norm"].value > 0


def test_a_scalar_loss_has_no_noise_scale_of_examples_and_that_is_an_error_of_the_measurement():
    state = run_state(nn.Linear(4, 3).double(), classified(reduction="mean"))

    with pytest.raises(NotPerExample, match="the task's loss is a scalar"):
        list(noise(state, method="per_example").measure(state))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("chunk", [5, 100])
def test_the_loss_surface_of_a_collated_batch_is_that_of_its_examples(chunk, double):
    state = collated()
    steps, labels = padded([Sequences()[i] for i in range(N)])
    model = Sums().double()
    loss = F.cross_entropy(model(steps.double()), labels)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    with loss_surface(state, gather(state.train, torch.arange(N)), chunk=chunk, double=double) as surface:
        value, found = surface.gradient(surface.weights)

    near = 1e-12 if double else 1e-5
    assert value == pytest.approx(loss.item(), rel=near)
    assert torch.allclose(found.double(), gradient, rtol=0, atol=near)


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SGD])
def test_an_optimizer_that_computes_the_loss_itself_makes_no_trial_steps_and_that_is_said_once(kind):
    model = nn.Linear(4, 3).double()
    state = run_state(model, classified(), optimizer=kind(model.parameters(), lr=0.1), step=1)
    notes = noted(state)
    instrument = GradientStatistics(batch_size=8, micro_batch_size=8, budget=80, clip_norm=None, seed=0)
    instrument.instrument_name = "gradient_statistics"
    random_state = torch.get_rng_state()

    first, second = (set(by_name(instrument.measure(state))) for _ in range(2))

    steps = {"gradient/cosine_successive", "gradient/update_to_weight_ratio"}
    assert first == second == {"gradient/variance"} | (steps if kind is torch.optim.SGD else set())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert len(notes) == (kind is torch.optim.LBFGS)
    if notes:
        assert notes[0].startswith("instruments.gradient_statistics leaves out trial steps (gradient/cosine_succ")
        assert notes[0].endswith("LBFGS computes the loss itself")
