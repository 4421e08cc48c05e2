"""How much memory this machine has left: a search for what fits must not drive it into the kernel's killer."""

import contextlib
from pathlib import Path

SHARE = 0.9  # of what is available: others take some meanwhile


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that a process may take now: what the kernel counts as available, and what its cgroup leaves of a limit."""
    import psutil

    left = [int(psutil.virtual_memory().available)] if root == Path("/") else [2**63]
    left += [room for room in map(_left_of, _cgroups(root)) if room is not None]
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
    """The limit of a cgroup less its use; pages of files that it may drop are no use. None: it has no limit."""
    for limit, use, droppable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            most, used = (int((cgroup / name).read_text()) for name in (limit, use))  # "max" is no number
            statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
            return max(0, most - used + int(statistics.get(droppable, 0)))
    return None
