"""What an instrument is, and how it leaves no trace."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from batchlab.records import Measurement
from batchlab.training.state import RunState
from batchlab.training.step import Outcome

F = TypeVar("F", bound=Callable[..., Any])


def empty(method: F) -> F:
    """Marks a `watch` that does nothing, so that the loop need not call it."""
    method.is_empty = True  # type: ignore[attr-defined]
    return method


class Instrument:
    """Something that measures a run. Inherit, and override what is needed.

    The factory is called with the instrument's own keys of the config and what its signature takes of: `eval_every`,
    `log_every`, `eval_batch_size`, `batch_size`, `micro_batch_size`, `budget` (all in examples) and `seed`.
    """

    every: int | None = None  # examples between measurements; None: only at the start and at the end

    @empty
    def watch(self, outcome: Outcome) -> None:
        """After every step. Keep references only: this must not wait for the device."""

    def measure(self, state: RunState) -> Iterator[Measurement]:
        """At 0 examples, at the first step beyond each multiple of `every`, and at the end; the clock stands still."""
        del state
        yield from ()

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        """Once, after the last `measure`: what the run as a whole comes to."""
        del state
        yield from ()

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs; empty where the instrument keeps nothing between measurements."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        del state


@contextlib.contextmanager
def leaving_no_trace(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Gradients, buffers (BatchNorm's), modes and random streams are afterwards what they were before.

    Inside, gradients start out empty. Weights and the optimizer are for the caller not to touch.
    """
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(b, b.clone()) for b in model.buffers()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    cuda = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            for p, _ in gradients:
                p.grad = None
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training
