"""A first update that overflows in fp16 has no effect: fused optimizers give the same as unfused ones."""

import math

import pytest
import torch
from torch import nn

from batchlab import BadRequest, Task
from batchlab.training.data.batches import split
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager

STEPS = 8
# Each fused optimizer of PyTorch, with the arguments of the shipped configs and with those that affect its state.
FUSED = {
    "sgd": lambda ps, fused: torch.optim.SGD(ps, lr=0.05, momentum=0.9, fused=fused),
    "sgd nesterov": lambda ps, fused: torch.optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True, fused=fused),
    "sgd plain": lambda ps, fused: torch.optim.SGD(ps, lr=0.05, fused=fused),
    "sgd decayed": lambda ps, fused: torch.optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=0.1, fused=fused),
    "adamw": lambda ps, fused: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1, fused=fused),
    "adam": lambda ps, fused: torch.optim.Adam(ps, lr=0.01, fused=fused),
    "adagrad": lambda ps, fused: torch.optim.Adagrad(ps, lr=0.05, fused=fused),
}


@pytest.fixture
def unwritten_memory_is_nan():
    """Makes uninitialised memory nan, so that it is not zero by chance."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def trained(make, fused, overflowing, precision="fp16"):
    """The weights after `STEPS` updates, of which `overflowing` (numbered from 1) had gradients out of fp16's range."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(12, 6, generator=generator), torch.randint(3, (12,), generator=generator)
    task = Task.classification(batch, batch)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    number = 0
    model[0].weight.register_hook(lambda g: g * math.inf if number in overflowing else g)
    how = Precision(precision, CpuDevice())
    optimizer = make(model.parameters(), fused)
    how.prepare(optimizer)
    step = Eager(Losses(model, task, how), optimizer)
    skipped = []
    for number in range(1, STEPS + 1):  # noqa: B007 - the hook reads it
        skipped.append(bool(step(split(batch, [12])).skipped))
    assert [n for n, was in enumerate(skipped, 1) if was] == sorted(overflowing)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("overflowing", [{1}, {5}, {1, 2, 5}, set()], ids=str)
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_a_skipped_update_has_the_same_effect_with_fused_and_unfused_optimizers(name, overflowing):
    fused, unfused = (trained(FUSED[name], fused, overflowing) for fused in (True, False))
    assert torch.isfinite(fused).all()
    torch.testing.assert_close(fused, unfused, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_without_overflow_the_first_update_is_bitwise_pytorchs():
    class Unprepared(Precision):
        def prepare(self, optimizer):
            pass

    ours = trained(FUSED["sgd"], True, set())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Precision, "prepare", Unprepared.prepare)
        plain = trained(FUSED["sgd"], True, set())
    assert torch.equal(ours, plain)


def test_a_damped_fused_momentum_is_refused_only_in_fp16():
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9, dampening=0.5, fused=True)
    with pytest.raises(BadRequest, match=r"optimizer\.dampening=0\.5 .* use optimizer\.fused=false"):
        Precision("fp16", CpuDevice()).prepare(optimizer)
    Precision("bf16", CpuDevice()).prepare(optimizer)
    assert not optimizer.state
