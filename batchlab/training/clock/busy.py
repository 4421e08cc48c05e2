"""Measures how busy the device is with a run in its current state."""

import time
from collections.abc import Callable

import torch

from batchlab.training.clock.pauses import busy_share
from batchlab.training.data.batches import gather, length
from batchlab.training.passes.inputs import repeatable
from batchlab.training.passes.no_trace import leaving_no_trace, set_mode
from batchlab.training.state import RunState
from batchlab.training.step import backward


def busy_share_of(
    state: RunState, micro_batch_size: int, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """`pauses.busy_share` of a micro-batch's forward and backward pass; leaves no trace; None on the CPU."""
    if state.device.settles():
        return None
    losses = repeatable(state, state.precision)
    batch = gather(state.train, torch.arange(micro_batch_size) % length(state.train))

    def passes() -> None:
        for p in state.trained.parameters():
            p.grad = None
        backward(losses, [batch])

    with leaving_no_trace(state.trained, state.device):
        set_mode(state.model, training=True)
        return busy_share(passes, state.device, clock)
