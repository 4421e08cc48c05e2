"""How much memory this machine has left, so that `batchlab find` does not trigger the out-of-memory killer."""

import contextlib
from pathlib import Path

SHARE = 0.9  # of available memory; others need some


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that a process can allocate now: the available memory, or what its cgroup's limit leaves."""
    import psutil

    left = [int(psutil.virtual_memory().available)] if root == Path("/") else [2**63]
    left += [free for free in map(_left_of, _cgroups(root)) if free is not None]
    return min(left)


def _cgroups(root: Path) -> list[Path]:
    """The folders of the memory cgroups that this process is in, up to the outermost: each may have a limit."""
    found: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            top = root / "sys/fs/cgroup" / controllers
            inner = top / path.lstrip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return found


def _left_of(cgroup: Path) -> int | None:
    """The limit of a cgroup minus its usage; file pages that can be dropped do not count. None: it has no limit."""
    for limit, use, droppable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            most, used = (int((cgroup / name).read_text()) for name in (limit, use))  # "max" is not a number
            statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
            return max(0, most - used + int(statistics.get(droppable, 0)))
    return None
