"""torch and torch.cuda for the simulated device's code: the real functions, with streams on a simulated clock."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from simulated_device import SimulatedCuda, SimulatedGpu


CLOCK = 1.98e9  # cycles per second of an H200 under load


@dataclass
class Queue:
    """A stream: kernels in sequence."""

    free_at: float = 0.0  # seconds, when all queued kernels are done


class Torch:
    """torch with simulated CUDA devices."""

    def __init__(self, cuda: "SimulatedCuda") -> None:
        self.cuda = _TorchCuda(cuda)
        self.device = _Device

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


class _Device:
    """torch.device; a class, as annotations may say `torch.device | None`."""

    def __new__(cls, kind: Any, index: int | None = None) -> torch.device:  # type: ignore[misc]
        requested = torch.device(kind) if index is None else torch.device(kind, index)
        if requested.type != "cuda":
            return requested
        return torch.device("cpu") if requested.index is None else torch.device("cpu", requested.index)


class _TorchCuda:
    """torch.cuda: its own functions, called with the CUDA devices that are simulated; streams and events."""

    def __init__(self, cuda: "SimulatedCuda") -> None:
        self._cuda = cuda

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch.cuda, name)
        if isinstance(found, type) or not callable(found):
            return found

        def called(*arguments: Any, **named: Any) -> Any:
            return found(*map(_as_cuda, arguments), **{key: _as_cuda(value) for key, value in named.items()})

        return called

    def _sleep(self, cycles: int) -> None:
        queue = self._cuda.queue or self._cuda.gpus[self._cuda.current].queue
        queue.free_at = max(queue.free_at, self._cuda.seconds) + cycles / CLOCK

    def Event(self, enable_timing: bool = False, **_: Any) -> "Event":  # noqa: N802 - torch's name
        return Event(self._cuda, enable_timing)

    def Stream(self, device: Any = None, **_: Any) -> "Stream":  # noqa: N802 - torch's name
        gpu = self._cuda.gpus[self._cuda.current if device is None or device.index is None else device.index]
        gpu.queues.append(Queue())
        return Stream(self._cuda, gpu, gpu.queues[-1])

    def current_stream(self, device: Any = None) -> "Stream":
        gpu = self._cuda.gpus[self._cuda.current if device is None or device.index is None else device.index]
        return Stream(self._cuda, gpu, self._cuda.queue or gpu.queue)

    def default_stream(self, device: Any = None) -> "Stream":
        gpu = self._cuda.gpus[self._cuda.current if device is None or device.index is None else device.index]
        return Stream(self._cuda, gpu, gpu.queue)

    @contextlib.contextmanager
    def stream(self, stream: "Stream | None") -> Iterator[None]:
        if stream is None:
            yield
            return
        before, self._cuda.queue = self._cuda.queue, stream.queue
        try:
            yield
        finally:
            self._cuda.queue = before


class Stream:
    """Like torch.cuda.Stream."""

    def __init__(self, cuda: "SimulatedCuda", gpu: "SimulatedGpu", queue: Queue) -> None:
        self._cuda, self.gpu, self.queue = cuda, gpu, queue

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.queue is self.queue

    __hash__ = None  # type: ignore[assignment]

    def wait_event(self, event: "Event") -> None:
        self.queue.free_at = max(self.queue.free_at, event.done_at or 0.0)

    def wait_stream(self, other: "Stream") -> None:
        self.queue.free_at = max(self.queue.free_at, other.queue.free_at)

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event(self._cuda)
        event.record(self)
        return event

    def query(self) -> bool:
        return self._cuda.seconds >= self.queue.free_at

    def synchronize(self) -> None:
        self._cuda.seconds = max(self._cuda.seconds, self.queue.free_at)


class Event:
    """Like torch.cuda.Event."""

    def __init__(self, cuda: "SimulatedCuda", enable_timing: bool = False) -> None:
        self._cuda, self._timing = cuda, enable_timing
        self.done_at: float | None = None  # seconds, when the stream reaches it

    def record(self, stream: Stream | None = None) -> None:
        queue = stream.queue if stream else self._cuda.queue or self._cuda.gpus[self._cuda.current].queue
        self.done_at = queue.free_at = max(queue.free_at, self._cuda.seconds)

    def wait(self, stream: Stream | None = None) -> None:
        queue = stream.queue if stream else self._cuda.queue or self._cuda.gpus[self._cuda.current].queue
        queue.free_at = max(queue.free_at, self.done_at or 0.0)

    def query(self) -> bool:
        return self.done_at is None or self._cuda.seconds >= self.done_at

    def synchronize(self) -> None:
        self._cuda.seconds = max(self._cuda.seconds, self.done_at or 0.0)

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds; as in CUDA both must be recorded with timing enabled, and the device must have reached them."""
        if not (self._timing and end._timing) or self.done_at is None or end.done_at is None:
            raise ValueError("Both events must be created with argument 'enable_timing=True' and recorded.")
        if not (self.query() and end.query()):
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return (end.done_at - self.done_at) * 1000


def _as_cuda(value: Any) -> Any:
    """The CUDA device for a simulated one, for torch.cuda's own functions; without an index if it has none."""
    if isinstance(value, torch.device) and value.type == "cpu":
        return torch.device("cuda") if value.index is None else torch.device("cuda", value.index)
    return value
