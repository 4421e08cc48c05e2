"""Making a limit of memory real, so that what does not fit fails here and now, and takes nothing else with it."""

import contextlib
import resource
from collections.abc import Iterator

import torch

from batchlab.errors import BadRequest
from batchlab.training.peaks import CudaPeaks, ResidentPeak, status_bytes


@contextlib.contextmanager
def limited(device: torch.device, allowed: int) -> Iterator[None]:
    """Inside, this process may take `allowed` bytes beyond what it has: of host memory, or of the CUDA device's.

    On the CPU the kernel refuses what is beyond (RLIMIT_DATA counts private writable memory, which malloc takes), and
    PyTorch says `DefaultCPUAllocator: can't allocate memory`. On CUDA PyTorch's allocator refuses, from here to the
    end of the process; the context, and what libraries take past it, are not in its count.
    """
    if device.type == "cuda":
        _limit_cuda(device, allowed)
        yield
        return
    held = status_bytes("VmData")
    if not held:
        raise BadRequest("a limit of memory on the CPU needs the /proc of Linux, and there is none: use device=cuda")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    known = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([held + allowed, *known]), hard))
    try:
        yield
    finally:  # what is made of the outcome needs memory too
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


class PrivatePeak:
    """The high-water mark of what the limit counts on the CPU: private writable memory, from `reset` on.

    The kernel keeps a mark of all address space (VmPeak), from which what was mapped of files is taken. Where it did
    not rise above an earlier peak, resident memory tells, less the pages of files: a forked process meets those of its
    libraries one by one, 40 MiB in the first step; they are shared, and no limit counts them.
    """

    def __init__(self) -> None:
        self._resident = ResidentPeak()
        self._before: dict[str, int] = {}

    def reset(self) -> None:
        """Growth counts from here."""
        self._resident.reset()
        self._before = {key: status_bytes(key) for key in ("VmPeak", "VmSize", "VmData", "RssFile")}

    def read(self) -> dict[str, int]:
        """Bytes at the highest since `reset`."""
        now = {key: status_bytes(key) for key in self._before}
        if now["VmPeak"] > self._before["VmPeak"]:
            not_counted = (now["VmSize"] - now["VmData"]) - (self._before["VmSize"] - self._before["VmData"])
            highest = now["VmPeak"] - self._before["VmSize"] - not_counted
        else:
            resident = self._resident.read()["memory/peak_resident_bytes"]
            highest = resident - (now["RssFile"] - self._before["RssFile"])
        return {"memory/peak_private_bytes": max(0, highest)}


def marks_of(device: torch.device) -> CudaPeaks | PrivatePeak:
    """The marks of the memory that `limited` is about."""
    if device.type != "cuda":
        return PrivatePeak()
    torch.cuda.init()  # type: ignore[no-untyped-call]  # before it there are no marks to set back
    return CudaPeaks(device)


def free_bytes(device: torch.device) -> int:
    """What is free on a CUDA device, whoever uses the rest."""
    return int(torch.cuda.mem_get_info(device)[0])


def _limit_cuda(device: torch.device, allowed: int) -> None:
    free, total = torch.cuda.mem_get_info(device)
    if allowed > free:
        raise BadRequest(
            f"{device} has {free / 2**30:.1f} GiB free, and a probe was to have {allowed / 2**30:.1f} GiB: give a "
            "smaller memory_limit, or leave it out"
        )
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
