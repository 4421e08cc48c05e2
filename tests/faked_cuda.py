"""The real Python layer of torch.cuda over a fake driver, so that torch's own argument checks run.

    with faked_cuda(count=2) as cuda:
        device = device_named("cuda:1")  # a real CudaDevice; torch.cuda.device_count() is 2
        device.prepare(deterministic=False)  # the real torch.cuda.set_device
        assert cuda.current == 1

Only calls of the driver are replaced: functions of `torch._C`, the runtime's `cudaMemGetInfo` and the table of
properties. The public functions of torch.cuda (`set_device`, `synchronize`, `mem_get_info`, ...) are never replaced.
No kernel runs: a tensor cannot be made on `cuda:0`, except under FakeTensorMode. `simulated_device.py` extends this
with CPU tensors that count as the device's.

In a separate process (the command line, and every worker that it forks):

    subprocess.run([sys.executable, "-m", "batchlab.cli.main", ...], env=environment("faked", count=2))

`plugged/sitecustomize.py` reads that environment when Python starts. It also replaces NVML by `plugged/pynvml.py`, so
that the parent, which does not use PyTorch, sees the same GPUs. CUDA_VISIBLE_DEVICES (numbers or uuids) is evaluated
as by the driver, when CUDA is first used.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from caching_allocator import CachingAllocator

VARIABLE = "BATCHLAB_TESTS_CUDA"  # {"kind": "faked" or "simulated", ... what `Cuda` takes}
HERE = Path(__file__).resolve().parent


@dataclass
class Gpu:
    """One GPU of the machine."""

    number: int  # the driver's number, whatever is visible
    name: str
    total_bytes: int
    capability: tuple[int, int]
    others_bytes: int  # taken by other processes
    context_bytes: int  # taken by a process that uses it, in addition to PyTorch's allocations
    generator: torch.Generator = field(init=False)
    has_context: bool = False
    drains: int = 0
    broken: str | None = None  # "device-side assert triggered": every later call raises

    before_reading: Callable[[], object] = lambda: None  # before `memory` is read

    def __post_init__(self) -> None:
        self._memory = CachingAllocator(self.number, total=self.total_bytes, taken=self.others_bytes)
        self.generator = torch.Generator()

    @property
    def memory(self) -> CachingAllocator:
        """Its memory, by PyTorch's allocator."""
        self.before_reading()
        return self._memory

    @property
    def uuid(self) -> str:
        """As in torch.cuda's properties; NVML prefixes it with `GPU-`."""
        return f"00000000-0000-4000-8000-{self.number:012d}"

    def open_context(self) -> None:
        """Opens a context, like the first call that needs one."""
        if not self.has_context:
            self.has_context = True
            self.memory.taken += self.context_bytes

    def must_work(self) -> None:
        """Raises CUDA's error if the context is broken."""
        if self.broken is not None:
            raise torch.AcceleratorError(
                f"CUDA error: {self.broken}\nCUDA kernel errors might be asynchronously reported at some other API "
                "call, so the stacktrace below might be incorrect.\nFor debugging consider passing "
                "CUDA_LAUNCH_BLOCKING=1\n"
            )


class Cuda:
    """A machine with GPUs, from the view of one process."""

    def __init__(
        self,
        count: int = 1,
        *,
        total_bytes: int = 8 * 2**30,
        name: str | list[str] = "Simulated GPU",  # a list: one for each
        capability: tuple[int, int] = (9, 0),
        others_bytes: int = 0,
        context_bytes: int = 32 * 2**20,
    ) -> None:
        names = [name] * count if isinstance(name, str) else name
        self.all = [
            Gpu(number, names[number], total_bytes, (capability[0], capability[1]), others_bytes, context_bytes)
            for number in range(count)
        ]
        self.current = 0
        self.calls: list[
            tuple[Any, ...]
        ] = []  # calls of the driver: ("set_device", 1), ("memory_fraction", 0.5, 0), ...
        self._visible: list[Gpu] | None = None  # decided when CUDA is first used
        self.on_drain: Callable[[Gpu], None] = lambda gpu: None

    @property
    def gpus(self) -> list[Gpu]:
        """Those that this process sees, in its order."""
        return self._visible if self._visible is not None else self._see()

    def _see(self) -> list[Gpu]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return self.all
        seen: list[Gpu] = []
        for word in visible.split(","):
            by_name = [gpu for gpu in self.all if word.strip() in (str(gpu.number), f"GPU-{gpu.uuid}")]
            if not by_name:  # the first invalid one ends the list
                break
            seen += by_name
        return seen

    def init(self) -> None:
        self.calls.append(("init",))
        self._visible = self._see()
        if not self._visible:
            raise RuntimeError("No CUDA GPUs are available")
        torch.cuda.default_generators = tuple(gpu.generator for gpu in self._visible)

    def set_device(self, index: int) -> None:
        self.calls.append(("set_device", index))
        if not 0 <= index < len(self.gpus):
            raise torch.AcceleratorError("CUDA error: invalid device ordinal")
        self.current = index
        self.gpus[index].open_context()

    def exchange_device(self, index: int) -> int:
        before = self.current
        if index >= 0 and index != before:
            self.current = index
        return before

    def synchronize(self) -> None:
        gpu = self.gpus[self.current]
        gpu.open_context()
        gpu.must_work()
        gpu.drains += 1
        self.on_drain(gpu)

    def synchronize_at(self, index: int) -> None:
        before, self.current = self.current, index
        self.synchronize()
        self.current = before

    def set_memory_fraction(self, fraction: float, index: int) -> None:
        self.calls.append(("memory_fraction", fraction, index))
        memory = self.gpus[index].memory
        memory.allowed = None if fraction >= 1.0 else int(fraction * memory.total)

    def memory_fraction(self, index: int) -> float:
        memory = self.gpus[index].memory
        return 1.0 if memory.allowed is None else memory.allowed / memory.total

    def memory_stats(self, index: int) -> dict[str, Any]:
        memory = self.gpus[index].memory
        nested: dict[str, Any] = {}
        for name, value in memory.stats().items():
            at, *rest = nested, *name.split(".")
            for part in rest[:-1]:
                at = at.setdefault(part, {})
            at[rest[-1]] = value
        return nested

    def reset_peaks(self, index: int) -> None:
        self.gpus[index].memory.reset_peaks()

    def empty_cache(self) -> None:
        for gpu in self.gpus:
            gpu.memory.empty_cache()

    def mem_get_info(self, index: int) -> tuple[int, int]:
        gpu = self.gpus[index]
        gpu.open_context()
        gpu.must_work()
        return gpu.memory.free_on_device, gpu.memory.total

    def properties(self, index: int) -> SimpleNamespace:
        gpu = self.gpus[index]
        return SimpleNamespace(
            name=gpu.name,
            major=gpu.capability[0],
            minor=gpu.capability[1],
            total_memory=gpu.total_bytes,
            uuid=gpu.uuid,
            multi_processor_count=132,
            warp_size=32,
            is_integrated=False,
        )

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, torch.cuda of this process uses this machine."""
        of_c: dict[str, Any] = {
            "_cuda_getDeviceCount": lambda: len(self.gpus),
            "_cuda_init": self.init,
            "_cuda_isInBadFork": lambda: False,
            "_cuda_setDevice": self.set_device,
            "_cuda_getDevice": lambda: self.current,
            "_cuda_exchangeDevice": self.exchange_device,
            "_cuda_maybeExchangeDevice": self.exchange_device,
            "_cuda_hasPrimaryContext": lambda index: self.gpus[index].has_context,
            "_cuda_synchronize": self.synchronize,
            "_cuda_setMemoryFraction": self.set_memory_fraction,
            "_cuda_getMemoryFraction": self.memory_fraction,
            "_cuda_memoryStats": self.memory_stats,
            "_cuda_resetPeakMemoryStats": self.reset_peaks,
            "_cuda_emptyCache": self.empty_cache,
            "_cuda_isCurrentStreamCapturing": lambda: False,
            "_accelerator_getDeviceIndex": lambda: self.current,  # for torch.accelerator, which optimizers call
            "_accelerator_setDeviceIndex": self.set_device,
            "_accelerator_getStream": lambda index: SimpleNamespace(is_capturing=lambda: False, device_index=index),
            "_accelerator_synchronizeDevice": self.synchronize_at,
            "_cuda_getArchFlags": lambda: " ".join(f"sm_{a}{b}" for a, b in {gpu.capability for gpu in self.all}),
        }
        of_cuda: dict[str, Any] = {
            "_initialized": False,
            "_cached_device_count": None,
            "_device_count_nvml": lambda: -1,  # or a GPU of this machine would count
            "_exchange_device": self.exchange_device,
            "_maybe_exchange_device": self.exchange_device,
            "_is_in_bad_fork": lambda: False,
            "_cudart": SimpleNamespace(cudaMemGetInfo=self.mem_get_info),
            "default_generators": (),
        }
        with contextlib.ExitStack() as stack:
            for name, fake in of_c.items():
                stack.enter_context(patch.object(torch._C, name, fake))
            for name, fake in of_cuda.items():
                stack.enter_context(patch.object(torch.cuda, name, fake))
            stack.enter_context(patch.object(torch.cuda, "_get_device_properties", self.properties, create=True))
            yield


@contextlib.contextmanager
def faked_cuda(count: int = 1, **machine: Any) -> Iterator[Cuda]:
    """A machine with `count` GPUs (`machine`: arguments of `Cuda`), inside the block."""
    cuda = Cuda(count, **machine)
    with cuda.installed():
        yield cuda


def environment(kind: str, **machine: Any) -> dict[str, str]:
    """The environment for a process on such a machine. `kind`: `faked` or `simulated`."""
    path = [str(HERE / "plugged"), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        VARIABLE: json.dumps({"kind": kind, **machine}),
        "PYTHONPATH": os.pathsep.join(part for part in path if part),
    }
