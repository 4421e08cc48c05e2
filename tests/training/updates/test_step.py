"""A step over micro-batches equals the step over the whole batch, up to rounding, in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F

from batchlab import Task
from batchlab.training.data.batches import split
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.phase import Phase
from batchlab.training.step import backward, counted, weighted_backward
from batchlab.training.updates.eager import Eager

CPU = CpuDevice()
RAGGED = [[7], [4, 3], [3, 3, 1], [1, 6], [1] * 7, [2, 2, 2, 1]]


def images(n=7):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(n, 1, 5, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (n,), generator=generator)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.LayerNorm(36), torch.nn.Linear(36, 3)
    ).double()


def relative_difference(a, b):
    flat_a, flat_b = (torch.cat([g.flatten() for g in grads]) for grads in (a, b))
    return ((flat_a - flat_b).norm() / flat_b.norm()).item()


def gradients(model):
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("sizes", RAGGED, ids=str)
def test_accumulated_gradient_is_that_of_a_plain_mean_over_the_whole_batch(sizes):
    batch = images()
    task = Task.classification(batch, batch)
    model, plain = network(), network()
    F.cross_entropy(plain(batch[0]), batch[1]).backward()

    loss_sum, count = backward(Losses(model, task, Precision("fp32", CPU)), split(batch, sizes))

    assert relative_difference(gradients(model), gradients(plain)) < 1e-12
    assert count == 7
    assert loss_sum.item() == pytest.approx(
        F.cross_entropy(plain(batch[0]), batch[1], reduction="sum").item(), rel=1e-12
    )


def test_a_mean_of_means_is_detected():
    # The test above can fail: the common bug differs by far more than rounding.
    batch = images()
    model, plain = network(), network()
    F.cross_entropy(plain(batch[0]), batch[1]).backward()
    for inputs, labels in split(batch, [4, 2, 1]):
        (F.cross_entropy(model(inputs), labels) / 3).backward()
    assert relative_difference(gradients(model), gradients(plain)) > 1e-2


def token_task(tokens):
    """A loss per token; examples have different numbers of tokens: label 0 is padding."""

    def count(batch):
        return int((batch[1] != 0).sum())

    def loss(outputs, batch):
        kept = batch[1] != 0
        return F.cross_entropy(outputs[kept], batch[1][kept], reduction="none")

    return Task(train=tokens, val=tokens, loss=loss, count=count)


@pytest.mark.parametrize("sizes", RAGGED, ids=str)
def test_tokens_have_equal_weight_in_any_micro_batch(sizes):
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(7, 6, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, 5, (7, 6), generator=generator)
    for example, kept in enumerate([6, 1, 3, 5, 2, 6, 4]):
        labels[example, kept:] = 0
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 5).double()
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(inputs).flatten(0, 1), labels.flatten(), ignore_index=0).backward()

    losses = Losses(model, token_task((inputs, labels)), Precision("fp32", CPU))
    _, count = backward(losses, split((inputs, labels), sizes))

    assert relative_difference(gradients(model), gradients(plain)) < 1e-12
    assert count == 27


def test_the_terms_of_a_step_are_counted_in_a_tensor_that_is_made_once_for_their_number():
    tokens = torch.randn(6, 5, 4), torch.tensor([[1, 2, 3, 0, 0], [1, 2, 0, 0, 0]]).repeat(3, 1)
    model = torch.nn.Linear(4, 5)
    losses = Losses(model, token_task(tokens), Precision("fp32", CPU))
    update = Eager(losses, torch.optim.SGD(model.parameters(), lr=0.1))

    counts = [update(split(batch, [2, 1])).count for batch in (*split(tokens, [3, 3]), *split(tokens, [3, 3]))]

    assert [count.item() for count in counts] == [8, 7, 8, 7]
    again = [update((tokens,)).count for _ in range(3)]
    assert again[0].item() == 15
    assert all(count is again[0] and count.dim() == 0 for count in again)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_twenty_clipped_updates_end_at_the_same_weights_as_a_plain_loop(make):
    batch = images(20)
    task = Task.classification(batch, batch)
    model, plain = network(), network()
    keys = {"lr": 0.05, **({"momentum": 0.9} if make is torch.optim.SGD else {})}
    step = Eager(Losses(model, task, Precision("fp32", CPU)), make(model.parameters(), **keys), clip_norm=0.5)
    optimizer = make(plain.parameters(), **keys)
    for _ in range(20):
        step(split(batch, [8, 8, 4]))
        optimizer.zero_grad()
        F.cross_entropy(plain(batch[0]), batch[1]).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_dict_batch_is_passed_by_name():
    torch.manual_seed(0)

    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def forward(self, x, y):
            return self.layer(x) - y

    batch = {"x": torch.randn(5, 3), "y": torch.randn(5, 1)}
    task = Task(train=batch, val=batch, loss=lambda outputs, batch: outputs.square().squeeze(1))
    model = Named()
    loss_sum, count = backward(Losses(model, task, Precision("fp32", CPU)), split(batch, [2, 3]))
    assert count == 5
    assert loss_sum.item() == pytest.approx(((model.layer(batch["x"]) - batch["y"]) ** 2).sum().item(), rel=1e-6)


def test_fp16_updates_that_overflow_are_skipped_and_reported():
    batch = (torch.ones(4, 2), torch.zeros(4, dtype=torch.long))
    huge = Task(
        train=batch, val=batch, loss=lambda outputs, batch: F.cross_entropy(outputs, batch[1], reduction="none") * 1e30
    )
    mild = Task.classification(batch, batch)
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    before = copy.deepcopy(model.state_dict())
    precision = Precision("fp16", CPU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    overflowed = Eager(Losses(model, huge, precision), optimizer)([batch])

    assert bool(overflowed.skipped)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    applied = Eager(Losses(model, mild, precision), optimizer)([batch])
    assert not bool(applied.skipped)
    assert not torch.equal(model.weight, before["weight"])


def test_bf16_sums_losses_in_float32():
    # 4,096 losses of 1: bf16 stops counting at 256.
    batch = (torch.zeros(4096, 1), torch.zeros(4096))
    task = Task(train=batch, val=batch, loss=lambda outputs, batch: outputs.flatten() + torch.ones_like(outputs[:, 0]))
    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.bias)
    loss_sum, _ = backward(Losses(model, task, Precision("bf16", CPU)), [batch])
    assert loss_sum.item() == 4096


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[7], [3, 3, 1]], ids=str)
def test_a_weight_that_is_a_tensor_makes_the_same_gradient_to_the_bit(sizes, dtype):
    """Like a weight that was reduced over devices."""
    inputs, labels = images()
    batch = inputs.to(dtype), labels
    task = Task.classification(batch, batch)
    model, other = (Losses(network().to(dtype), task, Precision("fp32", CPU)) for _ in range(2))

    loss_sum, count = backward(model, split(batch, sizes))
    micro_batches, counted_terms = counted(other, split(batch, sizes))
    weight = torch.ones((), dtype=torch.float64) / torch.tensor(counted_terms)
    other_sum = weighted_backward(other, micro_batches, weight, Phase())

    assert count == counted_terms == 7
    assert torch.equal(loss_sum, other_sum)
    assert weight == 1 / 7
    for a, b in zip(gradients(model.model), gradients(other.model), strict=True):
        assert torch.equal(a, b)


def test_the_value_of_a_weight_on_the_device_is_not_read():
    """The device `meta` has no values."""
    weight = torch.ones(3, device="meta", requires_grad=True)

    Precision("fp32", CPU).backward(weight.square(), torch.ones((), dtype=torch.float64, device="meta"))

    assert weight.grad.shape == (3,)


@pytest.mark.parametrize("engine", ["there", "absent"])
def test_the_gradient_is_the_same_by_either_call_of_the_engine(engine, monkeypatch):
    if engine == "absent":
        monkeypatch.delattr(torch.autograd.graph, "_engine_run_backward")
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(7, 3, dtype=torch.float64)
    Precision("fp32", CpuDevice()).backward((x @ weight).square(), 0.25)
    assert torch.allclose(weight.grad, 0.25 * 2 * x.T @ (x @ weight.detach()), rtol=1e-12)
    Precision("fp32", CpuDevice()).backward((x @ weight).square(), 0.25)  # adds
    assert torch.allclose(weight.grad, 0.5 * 2 * x.T @ (x @ weight.detach()), rtol=1e-12)
