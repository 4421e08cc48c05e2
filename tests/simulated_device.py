"""A CUDA device that computes with CPU tensors: batchlab's own `CudaDevice`, torch.cuda's own Python layer, and below
them a simulated driver, caching allocator and queue of kernels.
Directly, in a test of a meter, a loop or an instrument:

    with simulated_cuda(total_bytes=256 * 2**20) as cuda:
        device = device_named("cuda")  # or "cuda:1", with count=2
        device.prepare(deterministic=False)
        x = torch.zeros(1000).to(device.torch_device)  # is on the device: 4096 bytes of it
        with device.limited(64 * 2**20):
            model.to(device.torch_device)(x)  # torch.OutOfMemoryError with CUDA's message if it does not fit
        cuda.gpus[0].memory.reserved, .allocated, .peak_allocated, .retries, .ooms
        cuda.gpus[0].drains, cuda.gpus[0].waits, cuda.gpus[0].kernels
        cuda.gpus[0].broken = "device-side assert triggered"  # every later call on the device raises
        cuda.gpus[0].before_kernel = a_function_of_the_operator  # may raise like a kernel

A whole run, probe or preflight in this process: `run(config, ...)`, `probe(config, ...)`, `examine([values])` with
device=cuda inside the block. The command line with its workers, in a separate process:

    subprocess.run([sys.executable, "-m", "batchlab.cli.main", "sweep", "device=cuda", ...],
                   env=environment("simulated", total_bytes=256 * 2**20))  # faked_cuda.environment

Tensors are on the device if they were moved there by `.to(device.torch_device)` (which copies), made by a factory with
`device=device.torch_device`, or are new results of an operation on one that is. `device.torch_device` is `cpu:0`, so
that PyTorch runs its CPU kernels; `tensor.device` is `cpu`, so an operation between the device and the host is *not*
refused here (FakeTensorMode does that), and `.cpu()` and `.numpy()` are neither copies nor waits.
A kernel's workspace is not counted, and memory is counted after the kernel has run.

Time: `cuda.clock()` is the host's, in seconds from 0. Each kernel takes `launch_seconds` of the host, and afterwards
`kernel_seconds` (a number, or a function of the operator and its result) of the device; `drain`, and operations that
wait for a value (`.item()`, nonzero, a boolean index), advance the host's clock. `torch.cuda.Event` and `Stream`, as
`CudaDevice` uses them, use the same clock.
"""

import contextlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from faked_cuda import Cuda, Gpu
from simulated_streams import Queue, Torch
from simulated_tensors import Tensors
from torch import Tensor

DEVICES = "batchlab.training.devices"
KernelSeconds = float | Callable[[Any, Any], float]


@dataclass
class SimulatedGpu(Gpu):
    """A GPU with a queue of kernels."""

    waits: list[str] = field(default_factory=list)  # operators that had to wait for a value
    kernels: int = 0
    busy_seconds: float = 0.0
    before_kernel: Callable[[Any], object] | None = None
    queue: Queue = field(default_factory=Queue)  # the default stream
    queues: list[Queue] = field(default_factory=list)  # the others


class SimulatedCuda(Cuda):
    """A machine whose GPUs compute."""

    def __init__(
        self, count: int = 1, *, launch_seconds: float = 0.0, kernel_seconds: KernelSeconds = 0.0, **machine: Any
    ) -> None:
        super().__init__(count, **machine)
        self.all: list[Any] = [
            SimulatedGpu(g.number, g.name, g.total_bytes, g.capability, g.others_bytes, g.context_bytes)
            for g in self.all
        ]
        self.launch_seconds, self.kernel_seconds = launch_seconds, kernel_seconds
        self.seconds = 0.0  # of the host
        self.on_drain = self._wait
        self.pinned = 0  # tensors in page-locked memory
        self.queue: Queue | None = None  # the current stream, unless it is the default one
        self._mode = Tensors(self)
        for gpu in self.all:
            gpu.before_reading = self._mode.bury
        self._entered: contextlib.ExitStack | None = None

    def clock(self) -> float:
        """Seconds of the host."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """The host is busy for this long."""
        self.seconds += seconds

    def launch(self, gpu: SimulatedGpu, operator: Any, result: Any) -> None:
        """One kernel, on the current stream."""
        cost = self.kernel_seconds(operator, result) if callable(self.kernel_seconds) else self.kernel_seconds
        self.seconds += self.launch_seconds
        queue = self.queue or gpu.queue
        queue.free_at = max(queue.free_at, self.seconds) + cost
        gpu.kernels += 1
        gpu.busy_seconds += cost

    def _wait(self, gpu: Any) -> None:
        self.seconds = max(self.seconds, *(queue.free_at for queue in (gpu.queue, *gpu.queues)))

    def wait_for(self, gpu: SimulatedGpu, operator: Any) -> None:
        """The host waits for a value."""
        gpu.waits.append(str(operator))
        self._wait(gpu)

    @contextlib.contextmanager
    def forbidding_waits(self) -> Iterator[None]:
        """AssertionError if the host waited for a value inside."""
        before = [len(gpu.waits) for gpu in self.all]
        yield
        waited = [gpu.waits[number:] for gpu, number in zip(self.all, before, strict=True)]
        assert not any(waited), f"the host waited for the device: {waited}"

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor is on one of the GPUs."""
        return self._mode.home(tensor) is not None

    def start_counting(self) -> None:
        """Starts tracking which tensors of this thread are on the device. `prepare` of a device calls it."""
        if self._entered is None:
            self._entered = contextlib.ExitStack()
            self._entered.enter_context(self._mode)

    def stop_counting(self) -> None:
        if self._entered is not None:
            self._entered.close()
            self._entered = None

    @contextlib.contextmanager
    def installed(self, module: ModuleType | None = None) -> Iterator[None]:
        """Inside, `device_named("cuda")` returns a simulated device; `module` is batchlab.training.devices.cuda."""
        module = module or importlib.import_module(f"{DEVICES}.cuda")
        device_class = simulated_class(self, module)
        with contextlib.ExitStack() as stack:
            stack.enter_context(super().installed())
            for where in (module, sys.modules.get(f"{DEVICES}.named")):
                if hasattr(where, "CudaDevice"):  # not yet, while it is being imported
                    stack.enter_context(patch.object(where, "CudaDevice", device_class))
            stack.enter_context(patch.object(Tensor, "record_stream", _recorded))
            stack.callback(self.stop_counting)
            yield


@contextlib.contextmanager
def simulated_cuda(count: int = 1, **machine: Any) -> Iterator[SimulatedCuda]:
    """A machine with `count` GPUs (`machine`: arguments of `SimulatedCuda` and `faked_cuda.Cuda`), inside the block."""
    cuda = SimulatedCuda(count, **machine)
    with cuda.installed():
        yield cuda


def simulated_class(cuda: SimulatedCuda, module: ModuleType) -> type:
    """batchlab's CudaDevice, from a copy of its module in which `torch` has simulated devices."""
    copy = _copy_of(module, cuda)

    class SimulatedDevice(copy.CudaDevice):  # type: ignore[misc,name-defined]
        """CudaDevice's own code, except what depends on a tensor's device."""

        def prepare(self, *, deterministic: bool) -> None:
            super().prepare(deterministic=deterministic)
            cuda.start_counting()

        def __str__(self) -> str:
            return f"cuda:{self.torch_device.index}"

        def holds(self, tensor: Tensor) -> bool:
            return cuda.holds(tensor)

    return SimulatedDevice


def _copy_of(module: ModuleType, cuda: SimulatedCuda) -> ModuleType:
    """A fresh copy of a module of devices/ with our `torch`; also in the modules next to it that use torch.cuda."""
    loader = SourceFileLoader(module.__name__, str(module.__file__))
    spec = importlib.util.spec_from_loader(module.__name__, loader)
    assert spec is not None
    copy = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"torch": Torch(cuda)}):
        loader.exec_module(copy)
    for name, value in list(vars(copy).items()):
        home = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        if home.startswith(DEVICES + ".") and home != module.__name__ and _names_torch_cuda(sys.modules[home]):
            home_copy = _copy_of(sys.modules[home], cuda)
            setattr(copy, name, home_copy if isinstance(value, ModuleType) else getattr(home_copy, name))
    return copy


def _names_torch_cuda(module: ModuleType) -> bool:
    return bool(re.search(r"\btorch\.cuda\b", Path(str(module.__file__)).read_text(encoding="utf-8")))


def _recorded(tensor: Tensor, stream: object) -> None:
    """`Tensor.record_stream`: not needed, because the simulated allocator has one stream."""
