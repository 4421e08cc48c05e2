"""The entry point of a child process. Imports torch only in the child."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from batchlab.config import RunConfig, SweepConfig
from batchlab.errors import BadRequest, StorageError
from batchlab.host.lease import leased, uuid_of
from batchlab.host.nvml import full_uuid
from batchlab.recording import disk
from batchlab.recording.run_folder import WORKER_LOG, RunIsHeld
from batchlab.records import Measurement
from batchlab.records.quantities import TRAINING_SPEED, WINDOW_LOSS
from batchlab.worker.messages import (
    Assignment,
    DeviceFailed,
    Ended,
    Entered,
    Failed,
    GridAccepted,
    GridRefused,
    Held,
    Notice,
    OfAGrid,
    OfARun,
    Planned,
    Probed,
    Progress,
    StorageFailed,
)

A = TypeVar("A")
Reply = TypeVar("Reply")

PR_SET_PDEATHSIG = 1
REPORT_SECONDS = 0.1  # between two messages of progress


def work(connection: Connection, assigned: Assignment, sweep: SweepConfig) -> None:
    """Trains a point in its folder; sends its planned examples, its progress and its record.

    Instead of the record it may send that another process holds the folder, or a disk error.
    """
    die_with_parent()
    stop, config, folder = stop_flag(), assigned.config, assigned.folder
    run_id = assigned.identity.run_id
    try:
        disk.make_folder(folder)
        log_to(folder / WORKER_LOG)
        from batchlab.worker.execute import run
        from batchlab.worker.run_log import Listener

        class Reporter(Listener):
            """Sends the progress to the parent, at most ten times a second."""

            def __init__(self) -> None:
                self._last = 0.0
                self._latest: dict[str, float] = {}

            def planned(self, examples: int) -> None:
                send(connection, Planned(run_id, examples))

            def take(self, measurement: Measurement) -> None:
                self._latest[measurement.name] = measurement.value
                now = time.monotonic()
                if now - self._last >= REPORT_SECONDS:
                    self._last = now
                    loss, speed = (self._latest.get(name) for name in (WINDOW_LOSS.name, TRAINING_SPEED.name))
                    send(connection, Progress(run_id, measurement.examples, loss, speed))

            def say(self, text: str) -> None:
                self.note(text)
                send(connection, Notice(run_id, text))

            def note(self, text: str) -> None:
                with contextlib.suppress(OSError):  # the log may be on a full disk
                    sys.stderr.write(text + "\n")

        at_once = sweep.jobs > 1 and config.device == "cpu"  # if leases cannot be used
        with leased(config.device, gpu_of(config.device)) as lease:
            record = run(
                config,
                folder,
                assigned.identity,
                sweep=sweep,
                listener=Reporter(),
                stopping=stop.is_set,
                shared=lambda: lease.shared() or (at_once and bool(lease.unknown)),
                announce=lambda phase: send(connection, Entered(run_id, phase)),
            )
    except RunIsHeld as held:
        send(connection, Held(run_id, held.by))
    except StorageError as error:
        send(connection, StorageFailed(run_id, str(error)))
    else:
        send(connection, Ended(run_id, record))


def gpu_of(device: str) -> str | None:
    """The UUID of the GPU `device` of this process: from the driver, or from PyTorch if the driver cannot tell.

    None for the CPU, and if the GPU cannot be queried: the run will report the error.
    """
    known = uuid_of(device)
    if known is not None or not device.startswith("cuda"):
        return known
    from batchlab.training.devices.named import device_named

    with contextlib.suppress(Exception):  # CUDA may fail to start with errors of several kinds
        uuid = device_named(device).uuid()
        return None if uuid is None else full_uuid(uuid)
    return None


def reply(connection: Connection, examine: Callable[[A], Reply], argument: A) -> None:
    """Sends the result of `examine(argument)`; what user code prints meanwhile is discarded."""
    _be_quiet()
    connection.send(examine(argument))


def reply_each(connection: Connection, examine: Callable[[A], Iterator[Reply]], argument: A) -> None:
    """Sends what `examine(argument)` yields, each at once, and then None."""
    _be_quiet()
    for found in examine(argument):
        connection.send(found)
    connection.send(None)


def _be_quiet() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print_to(os.open(os.devnull, os.O_WRONLY))


def check(grid: Sequence[RunConfig]) -> OfAGrid:
    """The result of `preflight.examine`, or the device of the grid that cannot be used."""
    try:
        from batchlab.worker.device_trial import why_unusable
        from batchlab.worker.preflight import examine

        deterministic = any(config.deterministic for config in grid)
        for device in dict.fromkeys(config.device for config in grid if config.device != "cpu"):
            if (unusable := why_unusable(device, deterministic=deterministic)) is not None:
                return DeviceFailed(device, *unusable)
        problems, facts = examine(grid)
    except BadRequest as error:
        return GridRefused((str(error),))
    except BaseException:
        return GridRefused((f"the check of the grid failed, which is a bug in batchlab: {traceback.format_exc()}",))
    return GridRefused(tuple(problems)) if problems else GridAccepted(tuple(facts))


def try_device(config: RunConfig) -> DeviceFailed | Failed | None:
    """Why PyTorch cannot use the device of `config`; None if it can."""
    from batchlab.worker.device_trial import why_unusable

    try:
        unusable = why_unusable(config.device, deterministic=config.deterministic)
    except BadRequest as error:
        return Failed(str(error))
    return None if unusable is None else DeviceFailed(config.device, *unusable)


def send(connection: Connection, message: OfARun | Probed) -> None:
    """Sends a message to the parent; if the parent is gone, nothing is lost: the record is on the disk."""
    with contextlib.suppress(OSError):
        connection.send(message)


def die_with_parent() -> None:
    """Ends this process with its server (by the kernel) and with the sweep (by a thread): no orphans."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    from multiprocessing.connection import wait

    wait([sentinel])
    os._exit(1)


def stop_flag() -> threading.Event:
    """An event that SIGTERM and the signals of batch systems set: the run ends after a whole step.

    Ctrl-C reaches the whole foreground group and is ignored here: the parent stops its child.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())
    return stop


def log_to(path: Path) -> None:
    """Appends stdout and stderr of this process, and of its C libraries, to `path`."""
    descriptor = disk.open_to_append(path)
    print_to(descriptor)
    os.close(descriptor)


def print_to(descriptor: int) -> None:
    """Makes `descriptor` this process's stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
