"""One attempt at a job: its process, its messages about each of its runs, and how each run ended."""

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
from batchlab.training.phase import BUILDING, TRAINING, VALIDATION
from batchlab.worker import entry as worker
from batchlab.worker.messages import Ended, Entered, Held, Notice, OfARun, Planned, Progress, StorageFailed

LINGER_SECONDS = 5.0  # allowed between its last record and its end
KILL_AFTER_SECONDS = 20.0  # between asking a worker to stop and killing it
WEDGED = "its process does not end although it was killed: it waits for a GPU or disk that does not respond"


@dataclass
class RunReport:
    """What the messages of a job say about one of its runs."""

    point: Point
    record: RunRecord | None = None
    phase: str = BUILDING  # the last that it has entered, of those that it announces
    held: str | None = None  # the process that holds its folder
    storage: str | None = None  # the disk error
    timed_out: bool = False


@dataclass
class Attempt:
    """A job that is being run."""

    job: Job
    process: ForkServerProcess
    connection: Connection
    closing: ExitStack  # releases the device at its end
    clock: Callable[[], float]
    started: float
    kills_before: int
    all_ended_at: float | None = None  # when the last record was received
    stop_requested_at: float | None = None
    stopped_by_us: bool = False
    killed_at: float | None = None
    wedged: bool = False  # its process does not end, even after SIGKILL
    finished: bool = False
    runs: dict[str, RunReport] = field(init=False)  # by run id

    def __post_init__(self) -> None:
        self.runs = {point.run_id: RunReport(point) for point in self.job.points}

    def receive(self, spectator: Spectator) -> None:
        """Handles one message of its process; ValueError if it is about a run that does not belong to the job."""
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
            case Entered(run_id, phase):
                self._run(run_id).phase = phase
            case Notice(run_id, text):
                spectator.say(f"{_named(self._run(run_id).point)}: {text}")
            case Ended(run_id, record):
                self._run(run_id).record = record
                if all(run.record is not None for run in self.runs.values()):
                    self.all_ended_at = self.clock()
            case Held(run_id, by):
                self._run(run_id).held = by
            case StorageFailed(run_id, reason):
                self._run(run_id).storage = reason
            case _:
                assert_never(message)

    def _run(self, run_id: str) -> RunReport:
        if run_id not in self.runs:
            raise ValueError(f"the process of {', '.join(self.runs)} sent a message about another run, {run_id}")
        return self.runs[run_id]

    def enforce_timeouts(self) -> None:
        """Asks it to stop when a run exceeds its timeout, and kills it if it does not stop."""
        now = self.clock()
        if self.stop_requested_at is None:
            for run in self.runs.values():
                timeout = run.point.config.timeout
                run.timed_out = timeout is not None and now - self.started > timeout
            if any(run.timed_out for run in self.runs.values()):
                self._request_stop_at(now)
        if self.stop_requested_at is not None and now - self.stop_requested_at > self._patience():
            self._kill()
        if self.all_ended_at is not None and now - self.all_ended_at > LINGER_SECONDS:
            self._kill()  # its record is saved; a thread of the user's code may keep it alive
        if self.killed_at is not None and now - self.killed_at > ENDS_WITHIN:
            self.finished = True

    def request_stop(self) -> None:
        """Asks it to stop after its step, with a checkpoint."""
        if self.stop_requested_at is None:
            self._request_stop_at(self.clock())

    def _request_stop_at(self, now: float) -> None:
        self.stop_requested_at, self.stopped_by_us = now, True
        self.process.terminate()

    def end_now(self) -> None:
        """Kills it."""
        self.stopped_by_us = True
        self._kill()

    def _kill(self) -> None:
        self.killed_at = self.clock() if self.killed_at is None else self.killed_at
        self.process.kill()

    def final_record(self, run: RunReport) -> RunRecord:
        """The record of a run, once the process has ended; if the process did not record how, that is done here.

        RunIsHeld if another sweep holds its folder by now, StorageError if the record cannot be written.
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
            if status is RunStatus.OOM and run.phase not in TRAINING:
                when = "in a validation" if run.phase == VALIDATION else "before its training began"
                less = ", or use a smaller eval_batch_size" if run.phase == VALIDATION else ""
                status = RunStatus.FAILED
                reason += f" {when}, so it is not oom, which says that a training step did not fit; free memory{less}"
        spent = 0.0 if record else self.clock() - self.started

        def ended(left: RunRecord) -> RunRecord:
            wall_seconds = left.wall_seconds + spent
            return replace(left, status=status, reason=reason, wall_seconds=wall_seconds, ended_at=now_utc())

        # A wedged process keeps its lock on the folder, but it has been killed and will never write there again.
        lock = contextlib.nullcontext() if self.wedged else hold(point.folder)
        return keep(point, ended, lock)

    def close(self) -> None:
        """Waits for its process and releases its device; a wedged process keeps its GPU."""
        waited = self.killed_at is not None and self.clock() - self.killed_at > ENDS_WITHIN
        self.wedged = not is_ended(self.process, 0.0 if waited else ENDS_WITHIN)
        self.connection.close()
        if not self.wedged:
            self.closing.close()

    def _patience(self) -> float:
        """Seconds between asking it to stop and killing it: at most the timeout of a run that timed out."""
        spent = [run.point.config.timeout or 0.0 for run in self.runs.values() if run.timed_out]
        return min([KILL_AFTER_SECONDS, *(max(1.0, timeout) for timeout in spent)])


def begin(job: Job, sweep: SweepConfig, server: WarmServer, closing: ExitStack) -> Attempt:
    """Starts the job's process, which sees only the job's devices, if it has any."""
    kills_before, started = oom_kill_count(), time.monotonic()
    process, connection = server.seeing(job.devices).start(worker.work, job.point.assignment, sweep)
    return Attempt(job, process, connection, closing, time.monotonic, started, kills_before)


def keep(
    point: Point, ended: Callable[[RunRecord], RunRecord], lock: AbstractContextManager[None] | None = None
) -> RunRecord:
    """Writes the record that the point's process has not written, `ended` of the stored one, and returns it.

    A final result is kept, unless it was to be measured again: the process may have died after its record, or another
    sweep may have been faster. RunIsHeld or StorageError if the record cannot be written.
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
