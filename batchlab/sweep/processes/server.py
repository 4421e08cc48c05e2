"""Fresh processes for the price of a fork, from a server that has imported torch and touched no device."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import TypeVarTuple

from batchlab.errors import BadRequest
from batchlab.host.exit_status import signal_name

ENDS_WITHIN = 30.0  # seconds: the longest that a healthy process takes, with all of a GPU's memory to give back
AFTER_A_KILL = 5.0  # seconds
Arguments = TypeVarTuple("Arguments")
PRELOAD = ["batchlab.sweep.processes.ignored_signals", "batchlab.sweep.processes.preload"]


class WarmServer:
    """Starts children that begin with everything imported (`preload`); leaving it ends the server."""

    def __init__(self, devices: Sequence[str] = ()) -> None:
        """To its children `devices`, UUIDs of GPUs, are the only ones there are, and the first is their `cuda`: the
        config they run never names one. Without any: all that CUDA sees."""
        self.devices = tuple(devices)
        self._context = multiprocessing.get_context("forkserver")
        self._found: int | None = None

    def __enter__(self) -> "WarmServer":
        self._found = _server_pid()  # one that runs already is its owner's to end
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the server at once. Left alone it would finish its imports first, and hold the caller's output open."""
        if _server_pid() != self._found:
            _end()

    def seeing(self, devices: Sequence[str]) -> "WarmServer":
        """The same server, for children to whom `devices` are the only GPUs there are."""
        return WarmServer(devices)

    def warm_up(self) -> None:
        """Starts the server's imports (10-20 s) in the background; returns at once."""
        self._context.set_forkserver_preload(PRELOAD)
        with _no_main():
            multiprocessing.forkserver.ensure_running()

    def start(
        self, target: Callable[[Connection, *Arguments], None], *arguments: *Arguments
    ) -> tuple[ForkServerProcess, Connection]:
        """A child running `target(connection, *arguments)`, and the parent's end of the connection.

        BadRequest, with how the server ended, where it starts none.
        """
        self.warm_up()
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=_seeing, args=(theirs, self.devices, target, *arguments), daemon=True)
        try:
            with _no_main():
                process.start()
        except (EOFError, ConnectionError) as error:
            raise BadRequest(_why_it_starts_none(error)) from None
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


def _why_it_starts_none(error: Exception) -> str:
    """What was seen of the server, in a sentence, and what to do about it."""
    what, code = "the process that imports PyTorch and starts each point's", _server_exit_code()
    if code is None:
        return f"{what} started none ({error or type(error).__name__}), and did not end: run the command again"
    if code > 0:
        return f"{what} ended with exit code {code}; its error is above, and `batchlab doctor` checks the installation"
    if code == 0:
        return f"{what} ended (exit code 0) before it started a point: run the command again"
    short = ", as happens where memory runs out" if code == -signal.SIGKILL else ""
    return (
        f"{what} was killed by {signal_name(-code)}{short}: run the command again, or see what `batchlab doctor` says"
    )


def _server_exit_code() -> int | None:
    """As `multiprocessing` has it: negative is a signal; None where the server has not ended."""
    pid = _server_pid()
    if pid is None:
        return None
    ends = time.monotonic() + AFTER_A_KILL
    # Left to be waited for: multiprocessing does so before it starts another.
    while (found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
        if time.monotonic() > ends:
            return None
        time.sleep(0.01)
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


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
