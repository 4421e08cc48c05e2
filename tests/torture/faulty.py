"""The disk's system calls as `batchlab.recording.disk` makes them, one of which fails."""

import contextlib
import errno
import functools
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from batchlab.recording import disk

COUNTED = ("open", "write", "fsync", "replace", "ftruncate", "unlink", "makedirs", "mkdir", "rmdir")


@dataclass(frozen=True)
class Call:
    """One system call: its name, the file it is about, and whether it makes or changes something."""

    name: str
    path: str


@dataclass(frozen=True)
class Kind:
    """What becomes of a call. `code` is what the system says; None: the process dies there."""

    name: str
    code: int | None = None
    when: str = "before"  # of the call's own work: before, half (of a write), after
    lasting: bool = False  # every later call as well
    writes_only: bool = False


KINDS = (
    Kind("killed before"),
    Kind("killed after", when="after"),
    Kind("torn write, killed", when="half", writes_only=True),
    Kind("ENOSPC once", errno.ENOSPC),
    Kind("ENOSPC for ever", errno.ENOSPC, lasting=True),
    Kind("short write, ENOSPC for ever", errno.ENOSPC, when="half", lasting=True, writes_only=True),
    Kind("EIO once", errno.EIO),
    Kind("EIO for ever", errno.EIO, lasting=True),
    Kind("EACCES once", errno.EACCES),
    Kind("EACCES for ever", errno.EACCES, lasting=True),
    Kind("short write", 0, when="half", writes_only=True),  # the system may do that: nothing is wrong
)


class FaultyOs:
    """`os`, whose `at`-th call (from 1), or the next one that `kind` fits, meets it; without a kind it only counts."""

    def __init__(self, at: int = 0, kind: Kind | None = None) -> None:
        self.at = at
        self.kind = kind
        self.calls: list[Call] = []
        self.paths: dict[int, str] = {}
        self.refused: list[Call] = []
        self.met = 0  # the call that was hit first

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return functools.partial(self._call, name, real) if name in COUNTED else real

    def _call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        path = (
            self.paths.get(args[0], "?")
            if isinstance(args[0], int)
            else os.fspath(args[-1 if name == "replace" else 0])
        )
        call = Call(name, path)
        self.calls.append(call)
        if self._hits(name):
            self._meet(call, real, args)
            if self.kind is not None and self.kind.code == 0:
                return real(args[0], args[1][: len(args[1]) // 2 or 1])
        found = real(*args, **kwargs)
        if name == "open":
            self.paths[found] = path
        if self._hits(name) and self.kind is not None and self.kind.when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    def _hits(self, name: str) -> bool:
        if self.kind is None or not self.at:
            return False
        fits = name == "write" or not self.kind.writes_only
        if not self.met and len(self.calls) >= self.at and fits:
            self.met = len(self.calls)
        if self.met == len(self.calls):
            return True
        # What gives room back works on a full disk.
        gives_back = name in ("unlink", "rmdir", "ftruncate") and self.kind.code == errno.ENOSPC
        return self.kind.lasting and 0 < self.met < len(self.calls) and not gives_back

    def _meet(self, call: Call, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
        kind = self.kind
        assert kind is not None
        if kind.when == "after" or kind.code == 0:
            return
        if kind.when == "half" and call.name == "write" and len(self.calls) == self.met:
            real(args[0], args[1][: len(args[1]) // 2])
        if kind.code is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.refused.append(call)
            raise OSError(kind.code, os.strerror(kind.code))


@contextlib.contextmanager
def through(door: Any) -> Iterator[Any]:
    """Lets `disk` make its system calls through `door`."""
    real, disk.os = disk.os, door  # type: ignore[attr-defined]
    try:
        yield door
    finally:
        disk.os = real  # type: ignore[attr-defined]
