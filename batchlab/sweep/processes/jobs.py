"""Between points and processes: what one group of processes does together, and the devices that it has meanwhile."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from batchlab.host.gpu_pool import without_other_programs
from batchlab.host.lease import take_device
from batchlab.host.nvml import Gpu
from batchlab.sweep.points import Point

LOOK_SECONDS = 5.0  # between two looks at who computes on the GPUs, while a point waits for one


@dataclass(frozen=True)
class Job:
    """What one group of processes does together: one point, in one process, on at most one device of its own."""

    points: tuple[Point, ...]
    devices: tuple[str, ...] = ()  # UUIDs of GPUs; none: the CPU, or the GPU that CUDA takes first

    def __post_init__(self) -> None:
        if len(self.points) != 1 or len(self.devices) > 1:
            raise ValueError(
                f"a job of {len(self.points)} points on {len(self.devices)} devices: it holds one point and at most "
                "one device"
            )

    @property
    def point(self) -> Point:
        """Its point. That today a job holds one is said here, and relied on by the process that trains it alone."""
        return self.points[0]


class Scheduler:
    """Turns points and the GPUs of a sweep into jobs."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = gpus
        self._seen: tuple[float, Sequence[Gpu]] | None = None  # when they were looked at, and those without others

    def job_of(self, point: Point, *, wedged: int) -> tuple[Job, ExitStack] | None:
        """The job of `point`, and what gives its device back once closed; None where it has to wait for a device.

        The device is one that no other job has, of this sweep or another's, and no other program computes on. Where
        `wedged` processes that do not end have them all, the first is used again.
        """
        closing = ExitStack()
        if not self._gpus or point.config.device != "cuda":
            return Job((point,)), closing
        gpu = closing.enter_context(take_device([gpu.uuid for gpu in self._without_other_programs()]))
        if gpu is None and wedged < len(self._gpus):
            closing.close()
            return None
        self._seen = None  # the next point asks anew
        return Job((point,), (gpu or self._gpus[0].uuid,)), closing

    def _without_other_programs(self) -> Sequence[Gpu]:
        """Asked of the driver once in `LOOK_SECONDS` while a point waits: to look disturbs what is timed."""
        if self._seen is None or time.monotonic() - self._seen[0] > LOOK_SECONDS:
            self._seen = time.monotonic(), without_other_programs(self._gpus)
        return self._seen[1]
