"""Starts new processes quickly, by forking a server that has imported torch and not used any device."""

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

ENDS_WITHIN = 30.0  # seconds: the most that a healthy process needs, even to free all of a GPU's memory
AFTER_A_KILL = 5.0  # seconds
Arguments = TypeVarTuple("Arguments")
PRELOAD = ["batchlab.sweep.processes.ignored_signals", "batchlab.worker.preload"]


class WarmServer:
    """Starts children with everything imported (`preload`); its end as a context ends the server."""

    def __init__(self, devices: Sequence[str] = ()) -> None:
        """Its children see only `devices` (UUIDs of GPUs), the first as `cuda`: their config never names a UUID.
        Empty: they see all devices of CUDA."""
        self.devices = tuple(devices)
        self._context = multiprocessing.get_context("forkserver")
        self._found: int | None = None

    def __enter__(self) -> "WarmServer":
        self._found = _server_pid()  # a server that already runs is ended by its owner
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the server immediately; otherwise it would finish its imports and hold the caller's output open."""
        if _server_pid() != self._found:
            _end()

    def seeing(self, devices: Sequence[str]) -> "WarmServer":
        """The same server, for children that see only `devices`."""
        return WarmServer(devices)

    def warm_up(self) -> None:
        """Starts the server's imports (10-20 s) in the background; returns at once."""
        self._context.set_forkserver_preload(PRELOAD)
        with _no_main():
            multiprocessing.forkserver.ensure_running()

    def start(
        self, target: Callable[[Connection, *Arguments], None], *arguments: *Arguments
    ) -> tuple[ForkServerProcess, Connection]:
        """A child that runs `target(connection, *arguments)`, and the parent's end of the connection.

        BadRequest, with how the server ended, if it cannot start a child.
        """
        self.warm_up()
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=_seeing, args=(theirs, self.devices, target, *arguments), daemon=True)
        try:
            with _no_main():
                process.start()
        except (EOFError, ConnectionError) as error:
            raise BadRequest(_why_no_child(error)) from None
        theirs.close()
        return process, ours


def ended(process: ForkServerProcess, seconds: float = ENDS_WITHIN) -> bool:
    """Waits for a process to end, and kills it if it does not; whether it ended.

    A process that hangs in the kernel, for example because its GPU does not respond, does not even end when killed. It
    is left behind, and this program does not wait for it at its own end.
    """
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join(min(seconds, AFTER_A_KILL))
    if not process.is_alive():
        return True
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
    return False


def _why_no_child(error: Exception) -> str:
    """How the server ended, in a sentence, and what to do about it."""
    what, code = "the server process, which imports PyTorch and starts the processes of points,", _server_exit_code()
    if code is None:
        return f"{what} did not start one ({error or type(error).__name__}): run the command again"
    if code > 0:
        return f"{what} ended with exit code {code}; its error is above; `batchlab doctor` checks the installation"
    if code == 0:
        return f"{what} ended (exit code 0) before it started one: run the command again"
    short = ", probably because memory ran out" if code == -signal.SIGKILL else ""
    return f"{what} was killed by {signal_name(-code)}{short}: run the command again, or check with `batchlab doctor`"


def _server_exit_code() -> int | None:
    """As in `multiprocessing`: negative for a signal; None if the server has not ended."""
    pid = _server_pid()
    if pid is None:
        return None
    ends = time.monotonic() + AFTER_A_KILL
    # WNOWAIT: multiprocessing reaps the process itself before it starts another.
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
    """In the child, before the first use of CUDA, which reads the variable once."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    target(connection, *arguments)


def keep_warm() -> None:
    """Keeps one server until this program ends, for callers that run several sweeps.

    It is restarted if the program's environment has changed: otherwise its children would have the old one.
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
    """Kills this program's server, if it runs."""
    pid = _server_pid()
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _server_pid() -> int | None:
    """The process id of this program's server, while it runs."""
    return getattr(multiprocessing.forkserver._forkserver, "_forkserver_pid", None)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hides the caller's `__main__` from multiprocessing.

    Otherwise each child would run the caller's script again, and a notebook or a script without
    `if __name__ == "__main__"` would start sweeps endlessly.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
