"""What a task's loss is, where it draws random numbers, and where it differentiates by itself."""

import pytest
import torch
import torch.nn.functional as F
from plain_defaults import configured
from torch import nn

from batchlab import Task
from batchlab.instruments.panel import build_instruments
from batchlab.training import assembly
from batchlab.training.data.order import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.passes.reduction import with_reduction

INPUTS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FORCES = torch.sin(INPUTS)


class Denoiser(nn.Linear):
    """Draws noise, and finds it again, in both modes; `drop` is dropout of the inputs, in training alone."""

    def __init__(self, drop=0.0):
        super().__init__(4, 4, dtype=torch.float64)
        self.drop = nn.Dropout(drop)

    def forward(self, x):
        noise = torch.randn_like(x)
        return super().forward(self.drop(x + noise)), noise


def mean(outputs, batch):
    return F.mse_loss(*outputs)


def contrastive(outputs, batch):
    """Whose noise is it, among those of the batch?"""
    found, noise = (F.normalize(part, dim=1) for part in outputs)
    return F.cross_entropy(found @ noise.T, torch.arange(len(noise)))


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize(("loss", "expected"), [(mean, "mean"), (contrastive, "batch")])
@pytest.mark.parametrize("declared", [None, "mean"])
def test_a_loss_that_draws_random_numbers_is_judged_by_its_mean_over_several_draws(loss, expected, drop, declared):
    task = Task(train=(INPUTS,), val=(INPUTS,), loss=loss, reduction=declared)
    found = []
    for seed in range(4):
        torch.manual_seed(seed)  # other weights
        found.append(with_reduction(task, Denoiser(drop), task.train, Precision("fp32", CpuDevice())).reduction)

    assert found == [expected] * 4


class Energy(nn.Module):
    """A force field: the forces are the derivative of the energy, in forward."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def forward(self, places):
        places = places.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.layers(places).sum(), places, create_graph=True)
        return -slope


def by_forward():
    return Task(
        train=(INPUTS, FORCES),
        val=(INPUTS[:17], FORCES[:17]),
        loss=lambda outputs, batch: F.mse_loss(outputs, batch[1]),
    )


def by_training_loss():
    return Task(
        train=(INPUTS, FORCES),
        val=(INPUTS[:17], FORCES[:17]),
        training_loss=lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
    )


@pytest.mark.parametrize("made", [by_forward, by_training_loss])
def test_a_model_that_differentiates_in_forward_is_trained_and_validated_like_by_a_plain_loop(made):
    config = configured(
        data={"_target_": f"{__name__}.{made.__name__}"}, model={"_target_": f"{__name__}.Energy"},
        optimizer={"_target_": "torch.optim.SGD"}, default_epochs=None, steps=10, batch_size=8, micro_batch_size=3,
        lr=0.05, lr_scaling="none", warmup=0.0, schedule="constant", weight_decay=0.0, clip_norm=None, device="cpu",
        eval_batch_size=5, trust=["torch"],
    )  # fmt: skip
    session = assembly.assemble(config, assembly.build_data(config, CpuDevice()), build_instruments)

    measured = {m.name: m.value for m in session.train()}

    plain = assembly.build_model(config, made(), CpuDevice())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05)
    for start in range(0, 80, 8):
        index = row(40, config.seed, start, 8)
        optimizer.zero_grad()
        F.mse_loss(plain(INPUTS[index]), FORCES[index]).backward()
        optimizer.step()
    for ours, theirs in zip(session.state.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    expected = F.mse_loss(plain(INPUTS[:17]), FORCES[:17]).item()
    assert measured["val/loss"] == pytest.approx(expected, rel=1e-6)
