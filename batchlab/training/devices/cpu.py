"""The CPU as the device of a run: it uses the host's memory, and its work is done when the call returns."""

import contextlib
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.training.devices import fp32_switches
from batchlab.training.devices.copies import HostCopies
from batchlab.training.devices.process_memory import PrivatePeak, ResidentPeak, keep_freed_pages, status_bytes


class CpuDevice:
    """The CPU."""

    kind = "cpu"
    rounding = 1e-6
    # One gather makes this many bytes of batches: fewer gathers cost less per step, but 128 KiB or more would come
    # from the kernel page by page, each time. The same for every batch size, so that it does not distort memory.
    gather_bytes = 96 * 2**10

    def __init__(self) -> None:
        self.torch_device = torch.device("cpu")

    def __str__(self) -> str:
        return "cpu"

    def prepare(self, *, deterministic: bool) -> None:
        keep_freed_pages()
        torch.use_deterministic_algorithms(deterministic)

    def name(self) -> str | None:
        """Not needed: the record's environment has it already, as `cpu`."""
        return None

    def uuid(self) -> str | None:
        return None

    def facts(self) -> Mapping[str, Any]:
        return {"device": self.kind}

    def drain(self) -> None:
        """Nothing to wait for."""

    def busy_seconds(self, work: Callable[[], object], host_seconds: float) -> float | None:
        del work, host_seconds
        return None

    def settles(self) -> bool:
        return True

    def peaks(self) -> ResidentPeak:
        return ResidentPeak()

    def limited_peaks(self) -> PrivatePeak:
        return PrivatePeak()

    @contextlib.contextmanager
    def limited(self, allowed: int) -> Iterator[None]:
        """The kernel refuses allocations beyond it (RLIMIT_DATA counts private writable memory, which malloc uses), and
        PyTorch reports `DefaultCPUAllocator: can't allocate memory`."""
        held = status_bytes("VmData")
        if not held:
            raise BadRequest("a memory limit on the CPU needs Linux's /proc, which is missing here: use device=cuda")
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        known = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([held + allowed, *known]), hard))
        try:
            yield
        finally:  # handling the outcome needs memory too
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

    def total_bytes(self) -> int | None:
        return None

    def free_bytes(self) -> int | None:
        return None

    def allocator_retries(self) -> int:
        return 0

    def empty_cache(self) -> None:
        """Nothing to do: there is only the C library's cache."""

    def holds(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cpu"

    def pins(self) -> bool:
        return False

    def copies(self) -> HostCopies:
        return HostCopies()

    def seed(self, seed: int) -> None:
        # Not torch.manual_seed: if CUDA has not been used, it records a traceback each time, which takes 0.3 ms.
        torch.default_generator.manual_seed(seed)

    def random_state(self) -> Tensor | None:
        return None

    def set_random_state(self, state: Tensor | None) -> None:
        """Nothing to do: the caller restores PyTorch's CPU generator."""

    def refuse_unless_able(self, precision: str) -> None:
        if precision == "tf32":
            raise BadRequest("precision=tf32 needs an NVIDIA GPU, and this run is on the CPU: use fp32 or bf16")

    def fp32(self, *, tf32: bool) -> AbstractContextManager[None]:
        del tf32  # refused above
        return fp32_switches.cpu_in_ieee()

    def fp32_is(self, *, tf32: bool) -> bool:
        return not tf32 and set(fp32_switches.cpu_switches()) <= {fp32_switches.IEEE, fp32_switches.NONE}
