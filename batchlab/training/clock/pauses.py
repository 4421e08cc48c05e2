"""What the clock of training cannot tell by itself: what a pause costs, and whether the device waits for the host."""

import statistics
import time
from collections.abc import Callable

from batchlab.training.devices.device import Device

QUICK_SECONDS = 0.1  # passes that take longer do not feel a pause
IN_A_ROW, ROUNDS = 4, 3

Clock = Callable[[], float]


def pause_seconds(passes: Callable[[], object], device: Device, clock: Clock = time.perf_counter) -> float:
    """By which draining the device lengthens the steps between two pauses; `passes` are those of one step.

    Where the host runs ahead of the device, a drained device stands idle until the next step's first kernel comes, and
    the host until the last one is done. Windows are equally many examples, so a large batch has that at every step and
    a small one at every tenth: n steps between two pauses take n x steady + pause, and the pause is charged to the
    measuring. On the CPU nothing runs ahead, and nothing is timed.
    """
    if device.settles():
        return 0.0
    alone, steady = _alone_and_steady(passes, device, clock)
    return max(0.0, alone - steady)


def busy_share(passes: Callable[[], object], device: Device, clock: Clock = time.perf_counter) -> float | None:
    """Of the time that `passes` take one after the other, how long the device works on them: 1 where it never waits
    for the host to ask; None where that is not known, and on the CPU.

    Not by events around the passes as they are: these time the gaps too. So the device is first given a kernel that
    only spins, until the host has asked for all of one of the passes (`Device.busy_seconds`; NVBench times kernels so).
    For a GPU that has been at work: at its idle clock it would look busy.
    """
    if device.settles():
        return None
    _, steady = _alone_and_steady(passes, device, clock)
    device.drain()
    began = clock()
    passes()
    host_seconds = clock() - began
    rounds = 1 if steady > QUICK_SECONDS else ROUNDS
    busy = [device.busy_seconds(passes, host_seconds) for _ in range(rounds)]
    known = [seconds for seconds in busy if seconds is not None]
    return min(1.0, statistics.median(known) / steady) if known and steady > 0 else None


def _alone_and_steady(passes: Callable[[], object], device: Device, clock: Clock) -> tuple[float, float]:
    """Seconds of the passes with the device drained before and after them, and of one more among many."""

    def seconds(count: int) -> float:
        device.drain()
        began = clock()
        for _ in range(count):
            passes()
        device.drain()
        return clock() - began

    first = seconds(1)
    if first > QUICK_SECONDS:
        return first, first
    alone = statistics.median(seconds(1) for _ in range(ROUNDS))
    together = statistics.median(seconds(IN_A_ROW) for _ in range(ROUNDS))
    return alone, (together - alone) / (IN_A_ROW - 1)
