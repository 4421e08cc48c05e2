"""A CUDA device that computes with CPU tensors: batchlab's own `CudaDevice`, torch.cuda's own Python layer, and below
them a driver, a caching allocator and a queue of kernels that are simulated.

Directly, in a test of a meter, a loop or an instrument:

    with simulated_cuda(total_bytes=256 * 2**20) as cuda:
        device = device_named("cuda")  # or "cuda:1", with count=2
        device.prepare(deterministic=False)
        x = torch.zeros(1000).to(device.torch_device)  # lies on the device: 4096 bytes of it
        with device.limited(64 * 2**20):
            model.to(device.torch_device)(x)  # torch.OutOfMemoryError, in CUDA's words, where it does not fit
        cuda.gpus[0].memory.reserved, .allocated, .peak_allocated, .retries, .ooms
        cuda.gpus[0].drains, cuda.gpus[0].waits, cuda.gpus[0].kernels
        cuda.gpus[0].broken = "device-side assert triggered"  # from now on everything on the device raises
        cuda.gpus[0].before_kernel = a_function_of_the_operator  # may raise what a kernel would

A whole run, probe or preflight in this process: `run(config, ...)`, `probe(config, ...)`, `examine([values])` with
device=cuda inside the block. The command line with its workers, in a process of its own:

    subprocess.run([sys.executable, "-m", "batchlab.cli.main", "sweep", "device=cuda", ...],
                   env=environment("simulated", total_bytes=256 * 2**20))  # faked_cuda.environment

Which tensors lie on the device: what was moved there by `.to(device.torch_device)` (which copies), what a factory made
with `device=device.torch_device`, and every new result of an operation on one that does. `device.torch_device` is
`cpu:0`, so that PyTorch runs its CPU kernels; `tensor.device` is `cpu`, so that an operation between the device and the
host is *not* refused here (FakeTensorMode does that), and `.cpu()` and `.numpy()` are neither copies nor waits.
What a kernel takes for itself (a workspace) is not counted, and memory is counted when the kernel has run.

Time: `cuda.clock()` is the host's, in seconds from 0. With `launch_seconds` each kernel costs the host so much, and
with `kernel_seconds` (a number, or a function of the operator and its result) the device works so long at it,
afterwards: `drain`, and what has to wait for a value (`.item()`, nonzero, a boolean index), puts the host's clock on.
`torch.cuda.Event` and `Stream`, as `CudaDevice` uses them, go by the same clock.
"""

import contextlib
import importlib
import importlib.util
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from faked_cuda import Cuda, Gpu
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICES = "batchlab.training.devices"
aten = torch.ops.aten
WAITS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.nonzero_static, aten.masked_select, aten.equal, aten.is_nonzero),
    *(aten._unique, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.allclose, aten.bincount),
}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # by a boolean one: a wait
KernelSeconds = float | Callable[[Any, Any], float]


@dataclass
class Queue:
    """A stream: kernels one after the other."""

    free_at: float = 0.0  # seconds, when all that it was given is done


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
        self.pinned = 0  # tensors that were put into page-locked memory
        self.queue: Queue | None = None  # the current stream, where it is not the default one
        self._mode = _Tensors(self)
        for gpu in self.all:
            gpu.before_reading = self._mode.bury
        self._entered: contextlib.ExitStack | None = None

    def clock(self) -> float:
        """Seconds of the host."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """The host works so long at something else."""
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
        """The host needs a value."""
        gpu.waits.append(str(operator))
        self._wait(gpu)

    @contextlib.contextmanager
    def forbidding_waits(self) -> Iterator[None]:
        """AssertionError where the host waited for a value inside: `never waits`, as a test."""
        before = [len(gpu.waits) for gpu in self.all]
        yield
        waited = [gpu.waits[number:] for gpu, number in zip(self.all, before, strict=True)]
        assert not any(waited), f"the host waited for the device: {waited}"

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor lies on one of the GPUs."""
        return self._mode.home(tensor) is not None

    def start_counting(self) -> None:
        """From here on tensors of this thread are the device's or the host's. `prepare` of a device does it."""
        if self._entered is None:
            self._entered = contextlib.ExitStack()
            self._entered.enter_context(self._mode)

    def stop_counting(self) -> None:
        if self._entered is not None:
            self._entered.close()
            self._entered = None

    @contextlib.contextmanager
    def installed(self, module: ModuleType | None = None) -> Iterator[None]:
        """Inside, `device_named("cuda")` gives a simulated device; `module` is batchlab.training.devices.cuda."""
        module = module or importlib.import_module(f"{DEVICES}.cuda")
        device_class = simulated_class(self, module)
        with contextlib.ExitStack() as stack:
            stack.enter_context(super().installed())
            for where in (module, sys.modules.get(f"{DEVICES}.named")):
                if hasattr(where, "CudaDevice"):  # not yet, where it is being imported
                    stack.enter_context(patch.object(where, "CudaDevice", device_class))
            stack.enter_context(patch.object(Tensor, "record_stream", _recorded))
            stack.callback(self.stop_counting)
            yield


@contextlib.contextmanager
def simulated_cuda(count: int = 1, **machine: Any) -> Iterator[SimulatedCuda]:
    """A machine with `count` GPUs (`machine`: what `SimulatedCuda` and `faked_cuda.Cuda` take), inside the block."""
    cuda = SimulatedCuda(count, **machine)
    with cuda.installed():
        yield cuda


def simulated_class(cuda: SimulatedCuda, module: ModuleType) -> type:
    """batchlab's CudaDevice, of a copy of its module in which `torch` is this one with simulated devices."""
    copy = _copy_of(module, cuda)

    class SimulatedDevice(copy.CudaDevice):  # type: ignore[misc,name-defined]
        """All is CudaDevice's own, but for what a tensor cannot tell."""

        def prepare(self, *, deterministic: bool) -> None:
            super().prepare(deterministic=deterministic)
            cuda.start_counting()

        def __str__(self) -> str:
            return f"cuda:{self.torch_device.index}"

        def holds(self, tensor: Tensor) -> bool:
            return cuda.holds(tensor)

    return SimulatedDevice


def _copy_of(module: ModuleType, cuda: SimulatedCuda) -> ModuleType:
    """A module of devices/, executed anew, whose `torch` is ours; so are the modules beside it that name torch.cuda."""
    loader = SourceFileLoader(module.__name__, str(module.__file__))
    spec = importlib.util.spec_from_loader(module.__name__, loader)
    assert spec is not None
    copy = importlib.util.module_from_spec(spec)
    loader.exec_module(copy)
    for name, value in list(vars(copy).items()):
        home = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", ""))
        if home.startswith(DEVICES + ".") and home != module.__name__ and _names_torch_cuda(sys.modules[home]):
            beside = _copy_of(sys.modules[home], cuda)
            setattr(copy, name, beside if isinstance(value, ModuleType) else getattr(beside, name))
    copy.torch = _Torch(cuda)  # type: ignore[attr-defined]
    return copy


def _names_torch_cuda(module: ModuleType) -> bool:
    return "torch.cuda." in Path(str(module.__file__)).read_text(encoding="utf-8")


def _recorded(tensor: Tensor, stream: object) -> None:
    """`Tensor.record_stream`: the simulated allocator has one stream, and reuses nothing too early."""


class _Torch:
    """torch, but that its CUDA devices are simulated."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self.cuda = _TorchCuda(cuda)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(kind: Any, index: int | None = None) -> torch.device:
        asked = torch.device(kind) if index is None else torch.device(kind, index)
        return torch.device("cpu", asked.index or 0) if asked.type == "cuda" else asked


class _TorchCuda:
    """torch.cuda: its own functions, told of the CUDA devices that simulated ones stand for; streams and events."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch.cuda, name)
        if isinstance(found, type) or not callable(found):
            return found

        def called(*arguments: Any, **named: Any) -> Any:
            return found(*map(_as_cuda, arguments), **{key: _as_cuda(value) for key, value in named.items()})

        return called

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
    """As torch.cuda.Stream."""

    def __init__(self, cuda: SimulatedCuda, gpu: SimulatedGpu, queue: Queue) -> None:
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
    """As torch.cuda.Event."""

    def __init__(self, cuda: SimulatedCuda, enable_timing: bool = False) -> None:
        self._cuda, self._timing = cuda, enable_timing
        self.done_at: float | None = None  # seconds, when the stream gets there

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
        """Milliseconds; as in CUDA both must have been recorded with timing on, and the device must be there."""
        if not (self._timing and end._timing) or self.done_at is None or end.done_at is None:
            raise ValueError("Both events must be created with argument 'enable_timing=True' and recorded.")
        if not (self.query() and end.query()):
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return (end.done_at - self.done_at) * 1000


def _as_cuda(value: Any) -> Any:
    """A simulated device as the one that torch.cuda's own functions know."""
    if isinstance(value, torch.device) and value.type == "cpu" and value.index is not None:
        return torch.device("cuda", value.index)
    return value


class _Tensors(TorchDispatchMode):
    """Follows which storages lie on a device, and has the allocator serve them."""

    def __init__(self, cuda: SimulatedCuda) -> None:
        super().__init__()
        self.cuda = cuda
        self._homes: dict[int, tuple[Any, SimulatedGpu, Any, int]] = {}  # by storage: a weak reference, GPU, block, ...
        self._gone: list[int] = []
        self._pinned: dict[int, Any] = {}

    def home(self, tensor: Tensor) -> SimulatedGpu | None:
        self.bury()
        storage = _storage(tensor)
        found = self._homes.get(storage._cdata) if storage is not None else None
        return found[1] if found else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        gpu = next((home for home in map(self.home, given) if home is not None), None)
        asked = kwargs.get("device")
        if isinstance(asked, torch.device) and asked.type == "cpu" and asked.index is not None:
            gpu = self.cuda.gpus[asked.index]
            if packet is aten._to_copy and self.home(args[0]) is gpu and _changes_nothing(args[0], kwargs):
                return aten.alias(args[0])  # it is there already
        if packet is aten.is_pinned:
            return _is_in(self._pinned, args[0])
        if packet is aten._pin_memory:
            return self._pin(args[0].clone())
        pins = kwargs.get("pin_memory") is True
        if pins:
            kwargs = {**kwargs, "pin_memory": False}
        if gpu is not None:
            gpu.must_work()
            if gpu.before_kernel is not None:
                gpu.before_kernel(func)
        known = {storage._cdata for storage in map(_storage, given) if storage is not None}
        result = func(*args, **kwargs)
        if pins:
            return self._pin(result)
        if gpu is not None:
            torch.cuda.init()  # as the first kernel does
            gpu.open_context()
            self._settle(gpu, result, known)
            if not _is_view(func, result, known):
                self.cuda.launch(gpu, func, result)
            if packet in WAITS or (packet in INDEXED and _by_bools(args[1])) or self._reads_back(packet, args):
                self.cuda.wait_for(gpu, func)
        return result

    def _settle(self, gpu: SimulatedGpu, result: Any, known: set[int]) -> None:
        """Every new storage of `result` takes its bytes from the device."""
        for leaf in tree_leaves(result):
            storage = _storage(leaf) if isinstance(leaf, Tensor) else None
            if storage is None:
                continue
            key, size = storage._cdata, storage.nbytes()
            held = self._homes.get(key)
            if held is not None and held[3] != size:  # resized in place
                del self._homes[key]
                if held[2] is not None:
                    held[1].memory.release(held[2])
                held = None
            elif held is not None or key in known:
                continue
            block = gpu.memory.allocate(size) if size else None
            self._homes[key] = (weakref.ref(storage, lambda _, key=key: self._gone.append(key)), gpu, block, size)

    def bury(self) -> None:
        while self._gone:
            held = self._homes.get(self._gone[-1])
            key = self._gone.pop()
            if held is not None and held[0]() is None:
                del self._homes[key]
                if held[2] is not None:
                    held[1].memory.release(held[2])

    def _pin(self, tensor: Tensor) -> Tensor:
        self.cuda.pinned += 1
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._pinned[key] = weakref.ref(storage, lambda _: self._pinned.pop(key, None))
        return tensor

    def _reads_back(self, packet: Any, args: Any) -> bool:
        """A copy from the device into memory of the host."""
        return packet is aten.copy_ and self.home(args[0]) is None and self.home(args[1]) is not None


def _storage(tensor: Tensor) -> Any:
    try:
        return tensor.untyped_storage() if tensor.device.type == "cpu" else None
    except (NotImplementedError, RuntimeError):  # sparse ones, and wrappers of torch.func, have none
        return None


def _is_in(pinned: dict[int, Any], tensor: Tensor) -> bool:
    storage = _storage(tensor)
    return storage is not None and storage._cdata in pinned


def _changes_nothing(tensor: Tensor, kwargs: dict[str, Any]) -> bool:
    return kwargs.get("dtype") in (None, tensor.dtype) and kwargs.get("memory_format") in (None, torch.preserve_format)


def _by_bools(index: Any) -> bool:
    masks = (torch.bool, torch.uint8)
    return any(isinstance(part, Tensor) and part.dtype in masks for part in index)


def _is_view(func: Any, result: Any, known: set[int]) -> bool:
    if func._schema.is_mutable:
        return False
    storages = [_storage(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return bool(storages) and all(storage is not None and storage._cdata in known for storage in storages)
