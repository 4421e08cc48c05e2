"""Jobs, the layer between points and processes: what one group of processes does, and on which devices."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from batchlab.host.gpu_pool import without_other_programs
from batchlab.host.lease import take_device
from batchlab.host.nvml import Gpu
from batchlab.sweep.points import Point

LOOK_SECONDS = 5.0  # between two queries of which programs use the GPUs, while a point waits for one


@dataclass(frozen=True)
class Job:
    """The work of one group of processes: one point, in one process, on at most one device."""

    points: tuple[Point, ...]
    devices: tuple[str, ...] = ()  # UUIDs of GPUs; empty: the CPU, or the first GPU of CUDA

    def __post_init__(self) -> None:
        if len(self.points) != 1 or len(self.devices) > 1:
            raise ValueError(
                f"a job of {len(self.points)} points on {len(self.devices)} devices: it holds one point and at most "
                "one device"
            )

    @property
    def point(self) -> Point:
        """Its only point. Only the process that trains it relies on there being one."""
        return self.points[0]


class Scheduler:
    """Assigns the GPUs of a sweep to its points."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = gpus
        self._seen: tuple[float, Sequence[Gpu]] | None = None  # time of the last query, and free GPUs

    def job_of(self, point: Point, *, wedged: int) -> tuple[Job, ExitStack] | None:
        """The job of `point`, and a stack that releases its device when closed; None if it has to wait for a device.

        The device is not used by any other job, of this sweep or another, nor by another program. If `wedged`
        processes, which do not end, hold all devices, the first one is used again.
        """
        closing = ExitStack()
        if not self._gpus or point.config.device != "cuda":
            return Job((point,)), closing
        gpu = closing.enter_context(take_device([gpu.uuid for gpu in self._without_other_programs()]))
        if gpu is None and wedged < len(self._gpus):
            closing.close()
            return None
        self._seen = None  # query again for the next point
        return Job((point,), (gpu or self._gpus[0].uuid,)), closing

    def _without_other_programs(self) -> Sequence[Gpu]:
        """Queries the driver at most every `LOOK_SECONDS` while a point waits: a query disturbs what is timed."""
        if self._seen is None or time.monotonic() - self._seen[0] > LOOK_SECONDS:
            self._seen = time.monotonic(), without_other_programs(self._gpus)
        return self._seen[1]
