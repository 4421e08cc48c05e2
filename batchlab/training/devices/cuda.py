"""A CUDA device (or ROCm, which PyTorch treats as CUDA) as the device of a run."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.training.devices import fp32_switches
from batchlab.training.devices.cuda_copies import CudaCopies
from batchlab.training.devices.cuda_marks import CudaMarks, CudaPeaks
from batchlab.training.first_error import finally_do

TENSOR_CORES = (8, 0)  # lowest compute capability with bf16 and tf32 in hardware (Ampere)
GATHER_BYTES = 32 * 2**20  # fewer batches at once cost a hundred launches a step, if examples are augmented
GATHER_SHARE = 1 / 512  # of the device's memory, at most: 16 MiB of 8 GiB
CYCLES_PER_SECOND = 3.0e9  # about the fastest clock that exists: a slower device spins longer
LONGEST_SPIN_SECONDS = 0.5
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # read once, at the first matrix product of a process
DETERMINISTIC_WORKSPACES = (":4096:8", ":16:8")  # what PyTorch accepts with deterministic algorithms


class CudaDevice:
    """One device, with its index in this process: several calls of torch.cuda require the index."""

    kind = "cuda"
    rounding = 1e-3  # kernels may sum in another order each time

    def __init__(self, index: int) -> None:
        self.torch_device = torch.device("cuda", index)
        self._copies = CudaCopies(self.torch_device)
        self._limit: int | None = None  # bytes, while `limited`

    def __str__(self) -> str:
        return str(self.torch_device)

    @property
    def gather_bytes(self) -> int:
        """Depends on total, not free, memory: a resumed run must cut its batches at the same places."""
        return min(GATHER_BYTES, int((self.total_bytes() or 0) * GATHER_SHARE))

    def prepare(self, *, deterministic: bool) -> None:
        if deterministic:
            allow_deterministic_products()
            _refuse_another_workspace()
        torch.use_deterministic_algorithms(deterministic)
        torch.cuda.set_device(self.torch_device)
        if spills_to_the_host():
            free, total = torch.cuda.mem_get_info(self.torch_device)
            torch.cuda.set_per_process_memory_fraction(free / total, self.torch_device)

    def name(self) -> str | None:
        return str(torch.cuda.get_device_name(self.torch_device))

    def uuid(self) -> str | None:
        return f"GPU-{torch.cuda.get_device_properties(self.torch_device).uuid}"

    def facts(self) -> Mapping[str, Any]:
        properties = torch.cuda.get_device_properties(self.torch_device)
        return {
            "device": self.kind,
            "device_name": properties.name,
            "device_bytes": properties.total_memory,
            "device_uuid": self.uuid(),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }

    def drain(self) -> None:
        torch.cuda.synchronize(self.torch_device)

    def busy_seconds(self, work: Callable[[], object], host_seconds: float) -> float | None:
        """Times `work` by two events behind a kernel that only spins, long enough for the host to queue all of `work`.

        So the device has its whole queue, and the time between the events has no gaps from waiting for the host. If the
        host has not queued everything by then (it waits for a value, or the queue is full after about 1,000 kernels),
        the first event has passed before the second is queued, and the result is None.
        """
        if host_seconds > LONGEST_SPIN_SECONDS:
            return None
        cuda: Any = torch.cuda  # events and the spinning kernel have no types
        began, ended = (cuda.Event(enable_timing=True) for _ in range(2))
        self.drain()
        cuda._sleep(int(CYCLES_PER_SECOND * (2 * host_seconds + 1e-3)))
        began.record()
        work()
        ended.record()
        queued_in_time = not began.query()
        self.drain()
        return float(began.elapsed_time(ended)) / 1e3 if queued_in_time else None

    def settles(self) -> bool:
        return False

    def peaks(self) -> CudaPeaks:
        return CudaPeaks(self.torch_device)

    def limited_peaks(self) -> CudaMarks:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before it there are no marks to reset
        return CudaMarks(self.torch_device)

    @contextlib.contextmanager
    def limited(self, allowed: int) -> Iterator[None]:
        """PyTorch's allocator refuses allocations beyond it; the context, and memory that libraries take directly, are
        not counted."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        if allowed > free:
            raise BadRequest(
                f"{self} has {free / 2**30:.1f} GiB free, less than the requested {allowed / 2**30:.1f} GiB: use a "
                "smaller memory_limit, or leave it out"
            )

        def limit_to(share: float, limit: int | None) -> None:
            self._limit = limit
            torch.cuda.set_per_process_memory_fraction(share, self.torch_device)

        before = torch.cuda.get_per_process_memory_fraction(self.torch_device)
        limit_to(allowed / total, allowed)
        with finally_do(lambda: limit_to(before, None)):  # handling the outcome needs memory too
            yield

    def total_bytes(self) -> int | None:
        """Inside `limited`, the limit: what a card of that size would have."""
        total = int(torch.cuda.get_device_properties(self.torch_device).total_memory)
        return total if self._limit is None else min(total, self._limit)

    def free_bytes(self) -> int | None:
        """Includes what PyTorch's allocator has cached for this process."""
        cached = torch.cuda.memory_reserved(self.torch_device) - torch.cuda.memory_allocated(self.torch_device)
        return int(torch.cuda.mem_get_info(self.torch_device)[0]) + cached

    def allocator_retries(self) -> int:
        return int(torch.cuda.memory_stats(self.torch_device).get("num_alloc_retries", 0))

    def empty_cache(self) -> None:
        torch.cuda.empty_cache()

    def holds(self, tensor: Tensor) -> bool:
        return tensor.device.type == "cuda"

    def pins(self) -> bool:
        return True

    def copies(self) -> CudaCopies:
        return self._copies

    def seed(self, seed: int) -> None:
        torch.default_generator.manual_seed(seed)
        torch.cuda.manual_seed(seed)

    def random_state(self) -> Tensor | None:
        return torch.cuda.get_rng_state(self.torch_device)

    def set_random_state(self, state: Tensor | None) -> None:
        if state is not None:
            torch.cuda.set_rng_state(state, self.torch_device)

    def refuse_unless_able(self, precision: str) -> None:
        if torch.version.hip is not None:
            if precision == "tf32":
                raise BadRequest("precision=tf32 needs an NVIDIA GPU, and this one is from AMD: use fp32 or bf16")
            return
        able = torch.cuda.get_device_capability(self.torch_device)
        if precision in ("bf16", "tf32") and able < TENSOR_CORES:
            raise BadRequest(
                f"precision={precision} needs compute capability 8.0, and {self.name()} has {able[0]}.{able[1]}, "
                "where it would be emulated: use fp16 or fp32"
            )

    def fp32(self, *, tf32: bool) -> AbstractContextManager[None]:
        return fp32_switches.cuda_in(fp32_switches.TF32 if tf32 else fp32_switches.IEEE)

    def fp32_is(self, *, tf32: bool) -> bool:
        return set(fp32_switches.cuda_switches()) == {fp32_switches.TF32 if tf32 else fp32_switches.IEEE}


def allow_deterministic_products() -> None:
    """Makes cuBLAS deterministic, unless the environment already has a setting for it.

    cuBLAS is deterministic only with a separate workspace for each stream. PyTorch reads the setting at the first
    matrix product of a process and keeps it. So a process that trains several points must call this before the first,
    if any of them is deterministic; the others do not change.
    """
    os.environ.setdefault(WORKSPACE, DETERMINISTIC_WORKSPACES[0])


def _refuse_another_workspace() -> None:
    setting = os.environ[WORKSPACE]
    if setting not in DETERMINISTIC_WORKSPACES:
        raise BadRequest(
            f"deterministic=true on CUDA needs {WORKSPACE}={' or '.join(DETERMINISTIC_WORKSPACES)}, but the "
            f"environment sets it to {setting or 'an empty string'}: unset it, or use deterministic=false"
        )


def spills_to_the_host(kernel: Path = Path("/proc/sys/kernel/osrelease")) -> bool:
    """Whether the driver may use host memory when the device's memory is full, as it does under Windows (WSL).

    Then a run would become slow instead of running out of memory; a limit at what is free now makes PyTorch refuse.
    """
    try:
        return "microsoft" in kernel.read_text(encoding="utf-8").lower()
    except OSError:
        return False


def visible_devices() -> int:
    """The number of CUDA devices that PyTorch can use in this process."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
