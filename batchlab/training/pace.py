"""What the clock of training cannot tell by itself: what a pause costs, and how long the device works on a step."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from batchlab.training.devices.device import Device

QUICK_SECONDS = 0.1  # steps that take longer do not feel a pause
PASSES, ROUNDS = 4, 3


@dataclass(frozen=True)
class Pace:
    """How a run's steps and its device keep up with each other."""

    pause_seconds: float = 0.0  # by which draining the device lengthens the steps between two pauses
    busy_seconds: float | None = None  # that the device works on the passes of one step; None: not known


def pace_of(passes: Callable[[], object], device: Device, clock: Callable[[], float] = time.perf_counter) -> Pace:
    """Times `passes`, the forward and backward passes of one step, alone and several in a row.

    Where the host runs ahead of the device, a drained device stands idle until the next step's first kernel comes, and
    the host until the last one is done. Windows are equally many examples, so a large batch has that at every step and
    a small one at every tenth: n steps between two pauses take n x steady + pause, and `pause_seconds` is charged to
    the measuring. On the CPU nothing runs ahead, and nothing is timed.
    """
    if device.settles():
        return Pace()

    def seconds(count: int) -> float:
        device.drain()
        began = clock()
        for _ in range(count):
            passes()
        device.drain()
        return clock() - began

    device.drain()
    began = clock()
    passes()
    host_seconds = clock() - began
    device.drain()
    busy = device.busy_seconds(passes, host_seconds)
    if clock() - began > QUICK_SECONDS:
        return Pace(busy_seconds=busy)
    alone = statistics.median(seconds(1) for _ in range(ROUNDS))
    together = statistics.median(seconds(PASSES) for _ in range(ROUNDS))
    steady = (together - alone) / (PASSES - 1)
    return Pace(pause_seconds=max(0.0, alone - steady), busy_seconds=busy)
