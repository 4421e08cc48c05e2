"""The state of a run that is not being trained, for tests of instruments."""

from types import SimpleNamespace

import torch

from batchlab import Task
from batchlab.training.clock.meter import Meter
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.state import RunState

CPU = CpuDevice()


def run_state(model, task, *, optimizer=None, precision="fp32", step=0):
    """The state of a run of `model` on `task`, whose sets are tuples of tensors, after `step` steps."""
    return RunState(
        model=model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1),
        task=task,
        train=task.train,
        val=task.val,
        device=CPU,
        precision=Precision(precision, CPU),
        meter=Meter(peaks=SimpleNamespace(read=dict, reset=lambda: None, pause=lambda: None)),
        budget=1000,
        step=step,
    )


def classified(n=30, n_val=20, features=4, classes=3, **changes):
    """A classification of normal inputs, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n + n_val, features, generator=generator, dtype=torch.float64)
    y = (x @ torch.randn(features, classes, generator=generator, dtype=torch.float64)).argmax(dim=1)
    return Task.classification((x[:n], y[:n]), (x[n:], y[n:]), **changes)


def by_name(measurements):
    return {m.name: m for m in measurements}
