"""A point that trains in a few milliseconds and has everything that a checkpoint must hold."""

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from plain_defaults import configured
from torch import nn

from batchlab.config import RunConfig
from batchlab.records import RunIdentity, RunRecord
from batchlab.task import Task
from batchlab.worker.execute import run
from batchlab.worker.frozen_imports import frozen_imports
from batchlab.worker.run_log import Listener

RUN_ID = "tiny"


class Data(Task):
    """40 examples of 6 numbers in 3 classes, the same each time."""

    def __init__(self, examples: int = 40, dtype: str = "float32") -> None:
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(examples + 16, 6, generator=generator, dtype=torch.float64).to(getattr(torch, dtype))
        y = (x @ x.new_tensor([[1, 0, -1], [0, 1, 0.5], [1, 1, 0], [0, -1, 1], [0.5, 0, 0], [0, 0, 1]])).argmax(dim=1)
        made = Task.classification((x[:examples], y[:examples]), (x[examples:], y[examples:]))
        super().__init__(**vars(made))


class Net(nn.Module):
    """Two layers, and between them what makes resuming hard: running statistics, random numbers, a hidden buffer."""

    def __init__(
        self,
        norm: bool = False,
        dropout: float = 0.0,
        hidden_buffer: bool = False,
        gain: float = 1.0,  # large: the first steps of fp16 overflow, and the scale falls
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        kind = getattr(torch, dtype)
        self.first = nn.Linear(6, 8, dtype=kind)
        self.norm = nn.BatchNorm1d(8, dtype=kind) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(8, 3, dtype=kind)
        self.hidden_buffer = hidden_buffer
        self.gain = gain
        self.register_buffer("seen", torch.zeros((), dtype=kind), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        if self.hidden_buffer and self.training:
            self.seen += x.abs().mean().to(self.seen.dtype)
            hidden = hidden / (1 + self.seen)
        return self.last(self.dropout(hidden)) * self.gain


SGD = {"_target_": "torch.optim.SGD", "momentum": 0.9}
ADAMW = {"_target_": "torch.optim.AdamW"}


def tiny(runs_dir: Path | str, *, model: Mapping[str, Any] | None = None, **changes: Any) -> RunConfig:
    """Ten steps of four examples, a checkpoint at every third of them, unless `changes` say otherwise."""
    dtype = {"dtype": changes.pop("dtype")} if "dtype" in changes else {}
    values = {
        "data": {"_target_": "torture.tiny.Data", **dtype},
        "model": {"_target_": "torture.tiny.Net", **dtype, **(model or {"norm": True, "dropout": 0.25})},
        "optimizer": SGD,
        "batch_size": 4,
        "steps": 10,
        "lr": 0.05,
        "eval_every": 16,
        "log_every": 8,
        "device": "cpu",
        "checkpoint_every": 12,
        "checkpoint_seconds": None,
        "study": "study",
        "runs_dir": str(runs_dir),
    }
    return configured(**values | changes)


def folder_of(config: RunConfig, name: str = RUN_ID) -> Path:
    return Path(config.runs_dir) / str(config.study) / name


def train(
    config: RunConfig,
    *,
    name: str = RUN_ID,
    stopping: Callable[[], bool] = lambda: False,
    listener: Listener | None = None,
    previous_ended_at: str | None = None,
) -> RunRecord:
    """The point, in this process."""
    identity = RunIdentity(name, str(config.study), "group", previous_ended_at=previous_ended_at)
    return run(config, folder_of(config, name), identity, stopping=stopping, listener=listener)


def stop_at(step: int) -> Callable[[], bool]:
    """A `stopping` that is asked before every step, and says yes once `step` steps of this call have been made."""
    requested = itertools.count()
    return lambda: next(requested) >= step


@functools.cache
def warmed_up() -> None:
    """Imports what the first optimizer and the first use of everything need, once and before any fork."""
    with frozen_imports():
        import torch._dynamo  # noqa: F401

        import batchlab.instruments.throughput
        import batchlab.tensorboard.study_view  # noqa: F401
