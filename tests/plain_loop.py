"""The weights of a few steps, by batchlab's parts and by a plain loop over a `DataLoader` in the same order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batchlab import Task
from batchlab.training.data.batches import Batches
from batchlab.training.data.order import row
from batchlab.training.devices.cpu import CpuDevice
from batchlab.training.devices.precision import Precision
from batchlab.training.losses import Losses
from batchlab.training.updates.eager import Eager

SIZES = (3, 3, 2)  # a ragged last micro-batch
SEED = 5


def trained(task: Task, data: Any, steps: int, model: nn.Module, **more: Any) -> list[Tensor]:
    update = Eager(Losses(model, task, Precision("fp32", CpuDevice())), torch.optim.SGD(model.parameters(), lr=0.1))
    for micro_batches in Batches(data, micro_batch_sizes=SIZES, seed=SEED, total=steps * sum(SIZES), **more):
        update(micro_batches)
    return [p.detach().clone() for p in model.parameters()]


def trained_plainly(
    task: Task,
    dataset: Any,
    collate: Callable[[list[Any]], Any] | None,
    steps: int,
    model: nn.Module,
    order: Sequence[int] | None = None,
) -> list[Tensor]:
    wanted = row(len(dataset), SEED, 0, steps * sum(SIZES)).tolist() if order is None else list(order)
    batches = []
    for _ in range(steps):
        for size in SIZES:
            batches.append(wanted[:size])
            wanted = wanted[size:]
    loaded = iter(DataLoader(dataset, batch_sampler=batches, collate_fn=collate))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in SIZES:
            batch = next(loaded)
            (task.loss(task.forward(model, batch), batch).sum() / sum(SIZES)).backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]
