"""`Losses` gives the task's own terms, in the run's precision, at the model's weights or at others."""

import copy

import pytest
import torch
import torch.nn.functional as F

from batchlab import Task
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses

CPU = CpuDevice()


class Net(torch.nn.Module):
    """Without a forward of its own: the task calls the two layers, the second one twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 3)
        self.register_buffer("shift", torch.ones(3))
        self.passes = 0


def by_layers(model, batch):
    model.passes += 1
    return model.second(model.second(torch.tanh(model.first(batch[0])))) + model.shift


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), torch.randint(0, 3, (6,), generator=generator)


def losses_of(batch, precision="fp32"):
    torch.manual_seed(1)
    return Losses(Net(), Task.classification(batch, batch, forward=by_layers), Precision(precision, CPU))


def plain(model, batch):
    return F.cross_entropy(by_layers(model, batch), batch[1], reduction="none")


def test_terms_at_other_weights_are_those_of_a_model_that_has_them_and_the_own_stay(batch):
    losses = losses_of(batch)
    before = copy.deepcopy(losses.model.state_dict())
    other = copy.deepcopy(losses.model)
    with torch.no_grad():
        for name in ("first.weight", "second.bias", "shift"):
            other.state_dict()[name].mul_(3).add_(1)

    weights = {name: other.state_dict()[name] for name in ("first.weight", "second.bias", "shift")}

    assert torch.equal(losses.at(weights, batch), plain(other, batch))
    assert all(torch.equal(before[name], tensor) for name, tensor in losses.model.state_dict().items())
    assert not torch.equal(losses(batch), plain(other, batch))


def test_terms_are_differentiated_twice_by_the_weights_that_are_given(batch):
    losses = losses_of(batch)
    weight = losses.model.second.weight.detach().clone()
    expected = torch.autograd.functional.hessian(
        lambda at: F.cross_entropy(
            F.linear(F.linear(torch.tanh(losses.model.first(batch[0])), at, losses.model.second.bias), at)
            + losses.model.second.bias + losses.model.shift, batch[1], reduction="sum"), weight,
    )  # fmt: skip

    found = torch.autograd.functional.hessian(lambda at: losses.at({"second.weight": at}, batch).sum(), weight)

    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_method_makes_one_pass_in_the_precision(precision, batch):
    losses = losses_of(batch, precision)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        outputs = by_layers(losses.model, batch)
        expected = F.cross_entropy(outputs, batch[1], reduction="none")
    losses.model.passes = 0

    assert torch.equal(losses(batch), expected)
    assert losses.model.passes == 1
    assert torch.equal(losses.outputs(batch), outputs)
    assert torch.equal(losses.terms(outputs, batch), expected)
    losses.model.passes = 0
    found = losses.quantities(batch)
    assert losses.model.passes == 1
    assert list(found) == ["loss", "accuracy"]
    assert torch.equal(found["loss"], expected)
    assert torch.equal(found["accuracy"], (outputs.argmax(1) == batch[1]).float())
