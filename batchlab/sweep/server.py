"""Fresh processes for the price of a fork, from a server that has imported torch and touched no device."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import TypeVarTuple

from batchlab.errors import BadRequest

ENDS_WITHIN = 30.0  # seconds: the longest that a healthy process takes, with all of a GPU's memory to give back
AFTER_A_KILL = 5.0  # seconds
Arguments = TypeVarTuple("Arguments")
PRELOAD = ["batchlab.sweep.deaf", "batchlab.sweep.preload"]


class WarmServer:
    """Starts children that begin with everything imported (`batchlab.sweep.preload`); leaving it ends the server."""

    def __init__(self) -> None:
        self.gpu: str | None = None  # the UUID of the GPU that children get where `start` names none; None: all
        self._context = multiprocessing.get_context("forkserver")
        self._found: int | None = None

    def __enter__(self) -> "WarmServer":
        self._found = _server_pid()  # one that runs already is its owner's to end
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the server at once. Left alone it would finish its imports first, and hold the caller's output open."""
        if _server_pid() != self._found:
            _end()

    def warm_up(self) -> None:
        """Starts the server's imports (10-20 s) in the background; returns at once."""
        self._context.set_forkserver_preload(PRELOAD)
        with _no_main():
            multiprocessing.forkserver.ensure_running()

    def start(
        self, target: Callable[[Connection, *Arguments], None], *arguments: *Arguments, devices: Sequence[str] = ()
    ) -> tuple[ForkServerProcess, Connection]:
        """A child running `target(connection, *arguments)`, and the parent's end of the connection.

        To the child `devices`, UUIDs of GPUs, are the only ones there are, and the first is its `cuda`: the config it
        runs never names one. None: `self.gpu`. BadRequest where the server has ended of what it imports.
        """
        self.warm_up()
        ours, theirs = self._context.Pipe(duplex=True)
        seen = devices or ([] if self.gpu is None else [self.gpu])
        process = self._context.Process(target=_seeing, args=(theirs, seen, target, *arguments), daemon=True)
        try:
            with _no_main():
                process.start()
        except (EOFError, ConnectionError):  # its traceback is on stderr
            raise BadRequest(
                "the process that imports PyTorch for all points ended of an error, which stands above: "
                "`batchlab doctor` says what is wrong with the installation"
            ) from None
        theirs.close()
        return process, ours


def ended(process: ForkServerProcess, seconds: float = ENDS_WITHIN) -> bool:
    """Waits for the end of a process that is ending, and kills one that is not; whether it ended.

    One that hangs in the kernel, as with a GPU that does not answer, does not end of a kill either. It is left behind,
    and this program does not wait for it when it ends.
    """
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join(min(seconds, AFTER_A_KILL))
    if not process.is_alive():
        return True
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    return False


def _seeing(
    connection: Connection,
    devices: Sequence[str],
    target: Callable[[Connection, *Arguments], None],
    *arguments: *Arguments,
) -> None:
    """In the child, before anything has asked CUDA, which reads the variable once."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    target(connection, *arguments)


def keep_warm() -> None:
    """Lets this program have one server to its end, for callers who run one sweep after the other.

    It is started anew where the program's environment has changed: its children would have the old one.
    """
    if _server_pid() is not None and _kept in ({}, os.environ):
        return
    _end()
    WarmServer().warm_up()
    if not _kept:
        atexit.register(_end)
    _kept.clear()
    _kept.update(os.environ)


_kept: dict[str, str] = {}  # the environment that the server of `keep_warm` was started in


def _end() -> None:
    """Ends this program's server at once, where one runs."""
    pid = _server_pid()
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _server_pid() -> int | None:
    """The process of this program's one server, while it runs."""
    return getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hides the caller's `__main__` while multiprocessing looks at it.

    Otherwise each child would run the caller's script again from its first line, and a notebook or a script without
    `if __name__ == "__main__"` would start sweeps for ever.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
