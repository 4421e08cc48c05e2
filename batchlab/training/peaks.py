"""Where the high-water marks of memory are read: the CUDA allocator, or the kernel's count of resident pages."""

import contextlib
import ctypes
import resource
from pathlib import Path

import torch


class CudaPeaks:
    """The allocator's marks: `allocated` is what tensors held, `reserved` what PyTorch took from the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def read(self) -> dict[str, int]:
        return {
            "memory/peak_allocated_bytes": torch.cuda.max_memory_allocated(self.device),
            "memory/peak_reserved_bytes": torch.cuda.max_memory_reserved(self.device),
        }

    def reset(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)


class ResidentPeak:
    """Growth of this process's resident set over the start of training (a fork inherits the pages of its server).

    The kernel's mark (VmHWM) is set back through /proc/self/clear_refs, and pages that an instrument freed are given
    back first. Training pays for getting them again, so that is done `RESETS` times, and then the mark stands: a
    step's memory has been seen by then. Where the mark may not be set back, measuring is charged.
    """

    RESETS = 4  # at the start, and after the first three measurements that rose above training

    def __init__(self) -> None:
        self._baseline = 0
        self._resets = 0

    def read(self) -> dict[str, int]:
        if self._resets > self.RESETS:
            return {"memory/peak_resident_bytes": 0}  # below any mark that was taken
        highest = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"memory/peak_resident_bytes": max(0, highest - self._baseline)}

    def reset(self) -> None:
        self._resets += 1
        if self._resets <= self.RESETS:
            _trim()
            self._baseline = self._baseline or _status("VmRSS")
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")


def _trim() -> None:
    """Gives what an instrument freed back to the kernel, so that it is not counted as training's."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def peaks_of(device: torch.device) -> CudaPeaks | ResidentPeak:
    """The marks that belong to `device`."""
    return CudaPeaks(device) if device.type == "cuda" else ResidentPeak()
