"""One try at one job: its process, what it says of each of its runs, and how each of them ended."""

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
from batchlab.sweep.points import Point, Spectator
from batchlab.sweep.processes.jobs import Job
from batchlab.sweep.processes.server import ENDS_WITHIN, WarmServer
from batchlab.sweep.processes.server import ended as is_ended
from batchlab.worker import entry as worker
from batchlab.worker.messages import Ended, Held, Notice, OfARun, Planned, Progress, StorageFailed

LINGER_SECONDS = 5.0  # between its record and its end
KILL_AFTER_SECONDS = 20.0  # between asking a worker to end and ending it
WEDGED = "its process does not end, though it was killed: the GPU or the disk that it waits for does not answer"


@dataclass
class Heard:
    """What has become known of one run of a job."""

    point: Point
    record: RunRecord | None = None
    held: str | None = None  # another process holds its folder: who
    storage: str | None = None  # what the disk refused
    timed_out: bool = False


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
    said_all_at: float | None = None  # when the last record was heard
    asked_at: float | None = None  # when it was told to end
    stopped_by_us: bool = False
    killed_at: float | None = None
    wedged: bool = False  # its process does not end, whatever is done
    finished: bool = False
    runs: dict[str, Heard] = field(init=False)  # by run id

    def __post_init__(self) -> None:
        self.runs = {point.run_id: Heard(point) for point in self.job.points}

    def hear(self, spectator: Spectator) -> None:
        """Takes one message of its process; ValueError where it names a run that is none of the job's."""
        try:
            message: OfARun = self.connection.recv()
        except (EOFError, OSError):
            self.finished = True
            return
        match message:
            case Planned(run_id, examples):
                spectator.expect(self._run(run_id).point.run_id, examples)
            case Progress(run_id, examples, loss, examples_per_second):
                spectator.update(self._run(run_id).point.run_id, examples, loss, examples_per_second)
            case Notice(run_id, text):
                spectator.say(f"{_named(self._run(run_id).point)}: {text}")
            case Ended(run_id, record):
                self._run(run_id).record = record
                if all(run.record is not None for run in self.runs.values()):
                    self.said_all_at = self.clock()
            case Held(run_id, by):
                self._run(run_id).held = by
            case StorageFailed(run_id, reason):
                self._run(run_id).storage = reason
            case _:
                assert_never(message)

    def _run(self, run_id: str) -> Heard:
        if run_id not in self.runs:
            raise ValueError(f"the process of {', '.join(self.runs)} sent a message about another run, {run_id}")
        return self.runs[run_id]

    def watch_the_clock(self) -> None:
        """Asks it to end when the time of a run is up, and ends it when asking did not help."""
        now = self.clock()
        if self.asked_at is None:
            for run in self.runs.values():
                timeout = run.point.config.timeout
                run.timed_out = timeout is not None and now - self.started > timeout
            if any(run.timed_out for run in self.runs.values()):
                self._ask_at(now)
        if self.asked_at is not None and now - self.asked_at > self._patience():
            self._kill()
        if self.said_all_at is not None and now - self.said_all_at > LINGER_SECONDS:
            self._kill()  # a thread of the user's code that does not end, say; its record is on the disk
        if self.killed_at is not None and now - self.killed_at > ENDS_WITHIN:
            self.finished = True

    def ask(self) -> None:
        """Tells it to end after its step, with a checkpoint."""
        if self.asked_at is None:
            self._ask_at(self.clock())

    def _ask_at(self, now: float) -> None:
        self.asked_at, self.stopped_by_us = now, True
        self.process.terminate()

    def end_now(self) -> None:
        """Ends it at once."""
        self.stopped_by_us = True
        self._kill()

    def _kill(self) -> None:
        self.killed_at = self.clock() if self.killed_at is None else self.killed_at
        self.process.kill()

    def concluded(self, run: Heard) -> RunRecord:
        """The record of a run, once the process has ended; what the process did not record is recorded here.

        RunIsHeld where another sweep has its folder by now, StorageError where the disk does not take it.
        """
        point, record = run.point, run.record
        if record is not None and not (run.timed_out and record.status is RunStatus.INTERRUPTED):
            return record
        if self.wedged:
            status, reason = RunStatus.KILLED, WEDGED
        elif run.timed_out:
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
        """Seconds between asking it to end and ending it: no more than a run that timed out had itself."""
        spent = [run.point.config.timeout or 0.0 for run in self.runs.values() if run.timed_out]
        return min([KILL_AFTER_SECONDS, *(max(1.0, timeout) for timeout in spent)])


def begin(job: Job, sweep: SweepConfig, server: WarmServer, closing: ExitStack) -> Attempt:
    """Starts the job's process, which sees the devices of the job alone where it has some."""
    kills_before, started = oom_kill_count(), time.monotonic()
    process, connection = server.seeing(job.devices).start(worker.work, job.point.assignment, sweep)
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
        if left is not None and left.status.is_final and left.ended_at != point.previous_ended_at:
            return left
        found = ended(left or point.new_record(RunStatus.RUNNING, ""))
        write_record(point.folder, found)
        return found


def _named(point: Point) -> str:
    return f"batch_size={point.config.batch_size} seed={point.config.seed}"
