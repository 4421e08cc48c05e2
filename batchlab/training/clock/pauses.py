"""Measures what a pause of training costs, and whether the device waits for the host."""

import statistics
import time
from collections.abc import Callable

from batchlab.training.devices.device import Device

QUICK_SECONDS = 0.1  # longer passes are not affected by a pause
IN_A_ROW, ROUNDS = 4, 3

Clock = Callable[[], float]


def pause_seconds(passes: Callable[[], object], device: Device, clock: Clock = time.perf_counter) -> float:
    """Seconds that draining the device adds to the steps between two pauses; `passes` are those of one step.

    If the host runs ahead of the device, a drained device is idle until the next step's first kernel arrives, and the
    host waits for the last one. Pauses come every so many examples, so a large batch may have one at every step and a
    small batch one at every tenth: n steps between two pauses take n x steady + pause, and the pause counts as
    measuring. On the CPU nothing runs ahead, and nothing is timed.
    """
    if device.settles():
        return 0.0
    alone, steady = _alone_and_steady(passes, device, clock)
    return max(0.0, alone - steady)


def busy_share(passes: Callable[[], object], device: Device, clock: Clock = time.perf_counter) -> float | None:
    """The share of the time of consecutive `passes` in which the device works: 1 if it never waits for the host; None
    if that is unknown, and on the CPU.

    Events around the passes alone would include the gaps. So the device first runs a kernel that only spins, until the
    host has queued one whole pass (`Device.busy_seconds`; NVBench times kernels in this way). Call it when the GPU has
    been working: at its idle clock speed it would look busy.
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
    """Seconds of the passes between two drains of the device, and of one more pass in a sequence."""

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
