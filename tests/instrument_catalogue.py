"""Every instrument of batchlab, with small settings, and a training run that shows any trace they leave."""

import random

import numpy as np
import torch

from batchlab import Task
from batchlab.instruments.curvature.sharpness import Sharpness
from batchlab.instruments.generalisation.gap import Generalisation
from batchlab.instruments.generalisation.memorisation import Memorisation
from batchlab.instruments.generalisation.worst_class import WorstClass
from batchlab.instruments.gradient.gradient_norm import Gradient
from batchlab.instruments.gradient.gradient_statistics import GradientStatistics
from batchlab.instruments.gradient.noise_scale import GradientNoiseScale
from batchlab.instruments.health import Health
from batchlab.instruments.memory import Memory
from batchlab.instruments.throughput import Throughput
from batchlab.instruments.training_loss import TrainingLoss
from batchlab.instruments.validation import Validation
from batchlab.training.clock.meter import Meter
from batchlab.training.data.batches import Batches
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.devices.process_memory import ResidentPeak
from batchlab.training.loop import train
from batchlab.training.state import RunState
from batchlab.training.updates.eager import Eager

CATALOGUE = {
    "training_loss": lambda: TrainingLoss(log_every=8),
    "health": lambda: Health(log_every=8),
    "throughput": lambda: Throughput(log_every=8),
    "memory": lambda: Memory(micro_batch_size=4),
    "gradient": lambda: Gradient(eval_every=8, every=8, batch_size=8, micro_batch_size=3, seed=0),
    "validation": lambda: Validation(eval_every=8, eval_batch_size=7),
    "gradient_statistics": lambda: GradientStatistics(
        batch_size=8, micro_batch_size=3, budget=64, clip_norm=0.1, seed=0, pairs=2, steps=2
    ),
    "noise_scale": lambda: GradientNoiseScale(
        batch_size=8,
        micro_batch_size=3,
        eval_every=40,
        budget=120,
        seed=0,
        method="per_example",
        full=True,
        per_layer=True,
    ),
    "sharpness": lambda: Sharpness(log_every=8, seed=0, levels=[1.1, 1.0], chunk=7, products=5, probes=2),
    "generalisation": lambda: Generalisation(eval_every=2, eval_batch_size=7),
    "worst_class": lambda: WorstClass(task=task(), eval_every=2, eval_batch_size=7),
    "memorisation": lambda: Memorisation(task=task(), eval_every=2, eval_batch_size=7),
}


def task():
    """30 examples in three classes; the second half of the labels is marked as wrong."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(30, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    return Task.classification(data, data, corrupted=torch.arange(30) >= 15, uncorrupted=data)


class Noisy(torch.nn.Module):
    """BatchNorm, dropout, and a forward pass that draws from every global random stream."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 16),
            torch.nn.BatchNorm1d(16),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(16, 3),
        )

    def forward(self, x):
        return self.layers(x) * (1 + 0.01 * random.random() + 0.01 * np.random.rand())


def trained(instruments, precision, *, rehearsing=True):
    """Everything in which an instrument could leave a trace, after 15 steps."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    data = task().train
    model = Noisy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    cpu = CpuDevice()
    number_format = Precision(precision, cpu)
    state = RunState(
        model=model,
        optimizer=optimizer,
        task=task(),
        train=data,
        val=data,
        device=cpu,
        precision=number_format,
        meter=Meter(peaks=ResidentPeak()),
        budget=120,
    )
    losses = []

    class Noted(Eager):
        def __call__(self, micro_batches):
            outcome = super().__call__(micro_batches)
            left = (outcome.loss_sum, outcome.count, outcome.skipped)
            losses.extend(tensor for tensor in left if tensor is not None)
            return outcome

        def rehearse(self, micro_batches, device, costly=None):
            return super().rehearse(micro_batches, device, costly) if rehearsing else 0.0

        def rehearse_update(self, device):
            if rehearsing:
                super().rehearse_update(device)

    noted = Noted(state.losses, optimizer)
    batches = Batches(data, micro_batch_sizes=[4, 4], seed=0, total=120)
    measured = list(train(state, batches, noted, instruments, learning_rate=lambda e: 0.01, stopping=lambda: False))
    scale = number_format.loss_scale()
    moments = [value for entry in optimizer.state.values() for value in entry.values()]
    tensors = [*model.state_dict().values(), *moments, *losses, torch.get_rng_state()]
    rest = (scale, random.getstate(), str(np.random.get_state()), [m.training for m in model.modules()])
    gradients = [p.grad for p in model.parameters()]
    return tensors + gradients, rest, measured
