"""One try at one job: its process, what it says, and how it ended."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import assert_never

from batchlab.config import SweepConfig
from batchlab.host.exit_status import classify, oom_kill_count
from batchlab.recording.files import now_utc
from batchlab.recording.run_folder import hold, read_record, write_record
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep import worker
from batchlab.sweep.jobs import Job
from batchlab.sweep.messages import Ended, Held, Notice, OfARun, Planned, Progress, StorageFailed
from batchlab.sweep.points import Point, Spectator
from batchlab.sweep.server import ENDS_WITHIN, WarmServer
from batchlab.sweep.server import ended as is_ended

LINGER_SECONDS = 5.0  # between its record and its end
KILL_AFTER_SECONDS = 20.0  # between asking a worker to end and ending it
WEDGED = "its process does not end, though it was killed: the GPU or the disk that it waits for does not answer"


@dataclass
class Attempt:
    """A job that is being run."""

    job: Job
    process: ForkServerProcess
    connection: Connection
    closing: ExitStack  # what is given back at its end: the device it was given
    clock: Callable[[], float]
    started: float
    kills_before: int
    record: RunRecord | None = None
    held: str | None = None  # another process holds its folder: who
    storage: str | None = None  # what the disk refused
    said_all_at: float | None = None  # when its record was heard
    asked_at: float | None = None  # when it was told to end
    timed_out: bool = False
    stopped_by_us: bool = False
    killed_at: float | None = None
    wedged: bool = False  # its process does not end, whatever is done
    finished: bool = field(default=False)

    def hear(self, spectator: Spectator) -> None:
        """Takes one message of its process."""
        try:
            message: OfARun = self.connection.recv()
        except (EOFError, OSError):
            self.finished = True
            return
        match message:
            case Planned(run_id, examples):
                spectator.expect(run_id, examples)
            case Progress(run_id, examples, loss, examples_per_second):
                spectator.update(run_id, examples, loss, examples_per_second)
            case Notice(text=text):
                spectator.say(f"{_named(self.job.point)}: {text}")
            case Ended(record=record):
                self.record, self.said_all_at = record, self.clock()
            case Held(by=by):
                self.held = by
            case StorageFailed(reason=reason):
                self.storage = reason
            case _:
                assert_never(message)

    def watch_the_clock(self) -> None:
        """Asks it to end when its time is up, and ends it when asking did not help."""
        timeout, now = self.job.point.config.timeout, self.clock()
        if timeout is not None and self.asked_at is None and now - self.started > timeout:
            self.timed_out = True
            self.ask()
        if self.asked_at is not None and now - self.asked_at > self._patience():
            self._kill()
        if self.said_all_at is not None and now - self.said_all_at > LINGER_SECONDS:
            self._kill()  # a thread of the user's code that does not end, say; its record is on the disk
        if self.killed_at is not None and now - self.killed_at > ENDS_WITHIN:
            self.finished = True

    def ask(self) -> None:
        """Tells it to end after its step, with a checkpoint."""
        if self.asked_at is None:
            self.asked_at = self.clock()
            self.stopped_by_us = not self.timed_out
            self.process.terminate()

    def end_now(self) -> None:
        """Ends it at once."""
        self.stopped_by_us = True
        self._kill()

    def _kill(self) -> None:
        self.killed_at = self.clock() if self.killed_at is None else self.killed_at
        self.process.kill()

    def concluded(self) -> RunRecord:
        """Its record, once its process has ended; what the process did not record is recorded here.

        RunIsHeld where another sweep has its folder by now, StorageError where the disk does not take it.
        """
        point, record = self.job.point, self.record
        if record is not None and not (self.timed_out and record.status is RunStatus.INTERRUPTED):
            return record
        if self.wedged:
            status, reason = RunStatus.KILLED, WEDGED
        elif self.timed_out:
            status, reason = RunStatus.TIMEOUT, f"took longer than timeout={point.config.timeout:g} seconds"
            if record is not None and record.steps > 0:
                reason += f"; stopped after step {record.steps:,} with a checkpoint"
        else:
            status, reason = classify(
                self.process.exitcode if self.process.exitcode is not None else 1,
                stopped_by_us=self.stopped_by_us,
                oom_kills=oom_kill_count() - self.kills_before,
            )
        spent = 0.0 if record else self.clock() - self.started

        def ended(left: RunRecord) -> RunRecord:
            wall_seconds = left.wall_seconds + spent
            return replace(left, status=status, reason=reason, wall_seconds=wall_seconds, ended_at=now_utc())

        # A wedged process keeps its lock on the folder, and will never write there again: it has been killed.
        lock = contextlib.nullcontext() if self.wedged else hold(point.folder)
        return keep(point, ended, lock)

    def close(self) -> None:
        """Waits for its process, and gives back what it was given; a wedged one keeps its GPU."""
        waited = self.killed_at is not None and self.clock() - self.killed_at > ENDS_WITHIN
        self.wedged = not is_ended(self.process, 0.0 if waited else ENDS_WITHIN)
        self.connection.close()
        if not self.wedged:
            self.closing.close()

    def _patience(self) -> float:
        timeout = self.job.point.config.timeout
        return (
            KILL_AFTER_SECONDS if timeout is None or not self.timed_out else min(KILL_AFTER_SECONDS, max(1.0, timeout))
        )


def begin(job: Job, sweep: SweepConfig, server: WarmServer, closing: ExitStack) -> Attempt:
    """Starts the job's process, which sees the devices of the job alone where it has some."""
    kills_before, started = oom_kill_count(), time.monotonic()
    process, connection = server.start(worker.work, job, sweep, devices=job.devices)
    return Attempt(job, process, connection, closing, time.monotonic, started, kills_before)


def keep(
    point: Point, ended: Callable[[RunRecord], RunRecord], lock: AbstractContextManager[None] | None = None
) -> RunRecord:
    """Records what the point's own process has not: `ended` of what is recorded. What is returned is on the disk.

    A final result is kept, unless it is the one that was to be measured again: the process died when it had said all,
    or another sweep was faster. RunIsHeld and StorageError where it cannot be written.
    """
    with lock or hold(point.folder):
        left = read_record(point.folder)
        if left is not None and left.status.is_answer and left.ended_at != point.answered_at:
            return left
        found = ended(left or point.new_record(RunStatus.RUNNING, ""))
        write_record(point.folder, found)
        return found


def _named(point: Point) -> str:
    return f"batch_size={point.config.batch_size} seed={point.config.seed}"
