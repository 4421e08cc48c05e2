"""The bytes by category, compared with counting by hand and with the state of torch's own optimizers."""

import pytest
import torch
from torch import nn

from batchlab.instruments.memory_account import account
from batchlab.task import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.state import RunState
from batchlab.training.updates.eager import Eager

CPU = CpuDevice()
PARAMETERS = (10 * 7 + 7) + 2 * 7 + (7 * 3 + 3)  # linear, batch norm, linear
TENSORS = 6


def stepped(make_optimizer) -> RunState:
    """A small network after one step, on 5 examples for training and 4 for validation."""
    generator = torch.Generator().manual_seed(0)
    task = Task.classification(
        train=(torch.randn(5, 10, generator=generator), torch.tensor([0, 1, 2, 0, 1])),
        val=(torch.randn(4, 10, generator=generator), torch.tensor([0, 1, 2, 0])),
    )
    model = nn.Sequential(nn.Linear(10, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    optimizer = make_optimizer(model.parameters())
    precision = Precision("fp32", CPU)
    state = RunState(model, optimizer, task, task.train, task.val, CPU, precision, Meter(peaks=CPU.peaks()), budget=5)
    Eager(Losses(model, task, precision), optimizer)((task.train,))
    return state


@pytest.mark.parametrize(
    ("make_optimizer", "held"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 4 * PARAMETERS),
        (lambda p: torch.optim.AdamW(p, lr=0.1), 2 * 4 * PARAMETERS + 4 * TENSORS),  # a step count for each tensor
        (lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True), 3 * 4 * PARAMETERS + 4 * TENSORS),
    ],
)
def test_each_category_is_what_counting_by_hand_gives(make_optimizer, held):
    counted = account(stepped(make_optimizer))

    assert counted.weights == 4 * PARAMETERS
    assert counted.gradients == 4 * PARAMETERS
    assert counted.buffers == 2 * 4 * 7 + 8  # running mean and variance, and the number of batches
    assert counted.optimizer_state == held
    assert counted.data == (5 + 4) * (10 * 4 + 8)


def test_saved_bytes_are_linear_in_the_micro_batch_and_data_is_repeated_to_fill_it():
    counted = account(stepped(lambda p: torch.optim.SGD(p, lr=0.1)))

    assert counted.saved.scatter == pytest.approx(0, abs=1e-6)
    # For each example: the input (10), the values saved by BatchNorm (7) and ReLU (7), the loss's logits (3), 4 bytes
    # each, and the label, 8 bytes. Once: BatchNorm's mean and inverse deviation, and the weight of the loss.
    assert counted.saved.per_example == pytest.approx(4 * (10 + 7 + 7 + 3) + 8)
    assert 0 <= counted.saved.fixed < 100


def test_a_loss_over_all_pairs_of_examples_is_recognised_as_not_linear():
    state = stepped(lambda p: torch.optim.SGD(p, lr=0.1))
    pairs = Task(train=state.train, val=state.val, loss=lambda outputs, batch: (outputs @ outputs.T).exp().sum(dim=1))
    state.task = pairs

    assert account(state).saved.scatter > 1


def test_counting_leaves_no_trace():
    state = stepped(lambda p: torch.optim.AdamW(p, lr=0.1))
    before = [t.clone() for t in (*state.model.state_dict().values(), *(p.grad for p in state.model.parameters()))]
    random_state = torch.get_rng_state()

    account(state)

    after = [*state.model.state_dict().values(), *(p.grad for p in state.model.parameters())]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(random_state, torch.get_rng_state())
