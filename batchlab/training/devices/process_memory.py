"""The memory of this process as the kernel counts it, and settings of the C library's allocator."""

import contextlib
import ctypes
import re
import resource
from collections.abc import Mapping
from pathlib import Path

from batchlab.training.devices.device import GROWTH

RESIDENT = "memory/peak_resident_bytes"


class ResidentPeak:
    """Growth of this process's resident set since the start of training (a fork inherits the pages of its server).

    At `reset` freed pages are returned to the kernel, its mark (VmHWM) is reset through /proc/self/clear_refs, and
    growth counts from there. After a measurement that used more than training the mark is reset again, and pages that
    the measurement freed but the process keeps do not count as growth: returning them would make training allocate its
    own again. Training may use them, so a later peak of small tensors can be counted too low, by no more than those
    pages; tensors of 32 MiB or more have pages of their own. If the mark cannot be reset, it stays that of before the
    measurement. A resumed run counts what training takes in addition to the restored optimizer's state, if that is more
    than before.
    """

    def __init__(self) -> None:
        self._baseline: int | None = None
        self._paused_at = 0  # bytes, when the last measurement began
        self._stuck = False  # whether the kernel's mark includes a measurement

    def read(self) -> dict[str, int]:
        if self._baseline is None or self._stuck:
            return {}
        highest = status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        growth = max(0, highest - self._baseline)
        return {RESIDENT: growth, GROWTH: growth}

    def keep_earlier_marks(self) -> None:
        """Nothing to do: the larger of the marks is kept."""

    def pause(self) -> None:
        self._paused_at = status_bytes("VmRSS")

    def resume(self, marks: Mapping[str, int]) -> None:
        del marks
        if self._baseline is not None:
            self._baseline += max(0, status_bytes("VmRSS") - self._paused_at)
        self._stuck = not _reset_mark()

    def reset(self) -> None:
        _trim()
        self._baseline = status_bytes("VmRSS")
        _reset_mark()


class PrivatePeak:
    """The high-water mark of what the limit counts on the CPU: private writable memory since `reset`.

    The kernel keeps a mark of all address space (VmPeak), from which mapped files are subtracted. If it did not rise
    above an earlier peak, resident memory is used, minus the pages of files: a forked process touches those of its
    libraries one by one, 40 MiB in the first step; they are shared, and no limit counts them.
    """

    def __init__(self) -> None:
        self._resident = ResidentPeak()
        self._before: dict[str, int] = {}

    def reset(self) -> None:
        """Growth counts from here."""
        self._resident.reset()
        self._before = {key: status_bytes(key) for key in ("VmPeak", "VmSize", "VmData", "RssFile")}

    def keep_earlier_marks(self) -> None:
        """Nothing to do: a process that tries a limit is never resumed."""

    def pause(self) -> None:
        """Nothing to do: no instrument measures during it."""

    def resume(self, marks: Mapping[str, int]) -> None:
        """Nothing to do: no instrument measures during it."""

    def read(self) -> dict[str, int]:
        """Peak bytes since `reset`."""
        now = {key: status_bytes(key) for key in self._before}
        if now["VmPeak"] > self._before["VmPeak"]:
            not_counted = (now["VmSize"] - now["VmData"]) - (self._before["VmSize"] - self._before["VmData"])
            highest = now["VmPeak"] - self._before["VmSize"] - not_counted
        else:
            resident = self._resident.read()[RESIDENT]
            highest = resident - (now["RssFile"] - self._before["RssFile"])
        return {"memory/peak_private_bytes": max(0, highest)}


def keep_freed_pages() -> None:
    """Makes the C library keep freed memory for the next step, instead of returning it to the kernel each time.

    A step of the CNN on digits at batch 256 took 1,000 page faults, a twelfth of its time; now it takes 2. `reset`
    still returns memory. The numbers are glibc's for mallopt; with other libraries nothing happens.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, 2**30)
        library.mallopt(mmap_threshold, 32 * 2**20)


def give_freed_pages_back() -> None:
    """The opposite: freed memory is returned at once, so the process uses no more than its tensors do.

    Kept pages fragment the heap: the CNN on digits took 1.3 to 1.9 times its tensors, and at one batch size 15% more or
    less from one process to the next. Here every tensor from 128 KiB on has its own pages (glibc's initial threshold,
    which it would raise), and threads share one heap; a step of 8,000 examples takes twice as long.
    """
    trim_threshold, mmap_threshold, most_heaps = -1, -3, -8
    with contextlib.suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, 128 * 2**10)
        library.mallopt(mmap_threshold, 128 * 2**10)
        library.mallopt(most_heaps, 1)


def _reset_mark() -> bool:
    """Makes the kernel's mark of resident memory count from now; whether it could."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _trim() -> None:
    """Returns to the kernel what an instrument freed, so that it is not counted as training's."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def status_bytes(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 if there is none."""
    # It is read twice or more in each pause of training: whole and unbuffered takes half the time of line by line.
    with contextlib.suppress(OSError), Path("/proc/self/status").open("rb", buffering=0) as file:
        found = re.search(rb"^%s:\s*(\d+)" % key.encode(), file.read(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0
