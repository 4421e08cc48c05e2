"""The status of a run whose process ended without recording one."""

import contextlib
import signal
from pathlib import Path

from batchlab.records import RunStatus


def classify(exitcode: int, *, stopped_by_us: bool, oom_kills: int) -> tuple[RunStatus, str]:
    """The status and the reason of a worker that ended without recording them itself.

    `exitcode` as multiprocessing gives it (negative: a signal); `oom_kills`: how often the kernel's out-of-memory
    killer ended a process in this cgroup (or on this machine) while the worker ran.
    """
    if stopped_by_us:
        return RunStatus.INTERRUPTED, "stopped during a step"
    if exitcode >= 0:
        return RunStatus.FAILED, f"its process ended with exit code {exitcode} without a result"
    if exitcode == -signal.SIGKILL:
        if oom_kills > 0:
            return RunStatus.OOM, "the kernel's out-of-memory killer ended its process (host memory ran out)"
        return RunStatus.KILLED, "its process was killed by another program (SIGKILL)"
    return RunStatus.FAILED, f"its process was ended by {signal_name(-exitcode)}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal 99` for one without a name."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def oom_kill_count() -> int:
    """How many processes the out-of-memory killer has ended: in this process's cgroup, else on this machine."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                return _counter(Path(f"/sys/fs/cgroup{path}/memory.events"))
    with contextlib.suppress(OSError):
        return _counter(Path("/proc/vmstat"))
    return 0


def _counter(file: Path) -> int:
    counts = dict(line.split() for line in file.read_text().splitlines() if len(line.split()) == 2)
    return int(counts.get("oom_kill", 0))
