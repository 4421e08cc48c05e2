"""Runs the points of a grid as jobs, each in its own process; uses no device and does not import torch."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import wait

from batchlab.config import SweepConfig
from batchlab.errors import StorageError
from batchlab.host.nvml import Gpu
from batchlab.printable import counted
from batchlab.recording.run_folder import RunIsHeld, holder
from batchlab.records import RunRecord
from batchlab.sweep.limits import Limits
from batchlab.sweep.planning import Action, plan_point
from batchlab.sweep.points import Point, Spectator, SweepOutcome, distinguishing, exit_code
from batchlab.sweep.processes.attempt import Attempt, RunReport, begin, keep
from batchlab.sweep.processes.interruption import Interruption, watching_signals
from batchlab.sweep.processes.jobs import Scheduler
from batchlab.sweep.processes.server import WarmServer

POLL_SECONDS = 0.2  # how often signals and the folders held by other sweeps are checked


def run_grid(
    points: Sequence[Point], sweep: SweepConfig, server: WarmServer, spectator: Spectator, gpus: Sequence[Gpu] = ()
) -> SweepOutcome:
    """Runs every point without a final result, `jobs` at once; a failed point does not stop the others.

    With `gpus`, each point gets one that no other point uses, of this sweep or another. A point that another sweep is
    running is left to that sweep, and waited for. A signal ends the sweep after the running points' steps; points
    that were not started are not in the records.
    """
    with watching_signals() as interruption:
        running = _Sweep(points, sweep, server, spectator, interruption, gpus)
        try:
            running.run()
        finally:
            running.end_processes()
    interruption.hand_over()
    return running.outcome()


class _Sweep:
    """A running sweep."""

    def __init__(
        self,
        points: Sequence[Point],
        sweep: SweepConfig,
        server: WarmServer,
        spectator: Spectator,
        interruption: Interruption,
        gpus: Sequence[Gpu],
    ) -> None:
        self.points = points
        self.sweep = sweep
        self.server = server
        self.spectator = spectator
        self.interruption = interruption
        self.gpus, self.scheduler = gpus, Scheduler(gpus)
        self.labels = dict(zip((p.run_id for p in points), distinguishing(points), strict=True))
        self.waiting = deque(points)
        self.elsewhere: deque[Point] = deque()  # held by other sweeps
        self.running: list[Attempt] = []
        self.wedged: list[Attempt] = []  # kept, since their devices are not free
        self.records: dict[str, RunRecord] = {}
        self.skipped = 0
        self.limits = Limits(skip_larger=sweep.skip_larger)
        self.storage: str | None = None
        self._stop_announced = False
        self._wait_announced = False
        self._others: set[str] = set()  # run ids that another sweep was running

    @property
    def stopping(self) -> bool:
        return self.interruption.count > 0 or self.storage is not None

    def run(self) -> None:
        """Runs until nothing is running or waiting."""
        while True:
            self._fill()
            if not self.running and (self.stopping or not (self.waiting or self.elsewhere)):
                return
            self._wait_for_messages()
            self._stop_if_requested()
            for attempt in [a for a in self.running if a.finished]:
                self._conclude(attempt)

    def outcome(self) -> SweepOutcome:
        records = tuple(self.records[p.run_id] for p in self.points if p.run_id in self.records)
        code = 74 if self.storage is not None else exit_code(records, self.interruption.exit_code)
        return SweepOutcome(records, self.skipped, code, self.storage)

    def end_processes(self) -> None:
        """Kills what still runs: no process outlives the sweep."""
        for attempt in self.running:
            attempt.end_now()
            attempt.close()

    def _fill(self) -> None:
        """Starts points until `jobs` of them run."""
        while self.waiting and len(self.running) < self.sweep.jobs and not self.stopping:
            point = self.waiting.popleft()
            found = plan_point(point, self.sweep)
            point = replace(point, previous_ended_at=found.previous_ended_at)
            if found.action is Action.SKIP and found.record is not None:
                self.limits.learn(point, found.record)
                if point.run_id in self._others:
                    self._ended(point, found.record)
                    continue
                self.records[point.run_id] = found.record
                self.skipped += 1
                continue
            try:
                if (by := holder(point.folder)) is not None:
                    self._leave_to_others(point, by)
                elif found.action is Action.RUN and (record := self.limits.too_large(point)) is not None:
                    self._ended(point, keep(point, lambda _, r=record: r))  # type: ignore[misc]
                elif not self._start(point):
                    self.waiting.appendleft(point)
                    return
            except RunIsHeld as held:
                self._leave_to_others(point, held.by)
            except StorageError as error:
                self.storage = str(error)

    def _start(self, point: Point) -> bool:
        """Whether there was a free device, so that it was started."""
        scheduled = self.scheduler.job_of(point, wedged=len(self.wedged))
        if scheduled is None:
            self._announce_wait()
            return False
        self.spectator.start(point.run_id, self.labels[point.run_id], 0)
        self.running.append(begin(scheduled[0], self.sweep, self.server, scheduled[1]))
        return True

    def _announce_wait(self) -> None:
        if not self.running and not self._wait_announced:
            self._wait_announced = True
            self.spectator.say(
                f"waiting for a GPU: other sweeps or programs use all of the {counted(len(self.gpus), 'GPU')} of this "
                "sweep (nvidia-smi lists the programs)"
            )

    def _leave_to_others(self, point: Point, by: str) -> None:
        if not self._others:
            self.spectator.say(f"{self.labels[point.run_id]} {by}: left to that sweep")
        self._others.add(point.run_id)
        self.elsewhere.append(point)

    def _wait_for_messages(self) -> None:
        """Waits up to `POLL_SECONDS` for messages of the running points."""
        if not self.running:
            time.sleep(POLL_SECONDS)  # until other sweeps are checked again; a signal ends it
        handles = [handle for a in self.running for handle in (a.connection, a.process.sentinel)]
        ready = wait(handles, timeout=POLL_SECONDS) if handles else []
        for attempt in self.running:
            if attempt.connection in ready:
                attempt.receive(self.spectator)
            elif attempt.process.sentinel in ready:
                attempt.finished = True
            attempt.enforce_timeouts()
        # Points held by other sweeps may be free again, or final.
        if len(self.running) < self.sweep.jobs and not self.waiting:
            self.waiting, self.elsewhere = self.elsewhere, deque()

    def _stop_if_requested(self) -> None:
        if not self.stopping:
            return
        if not self._stop_announced and self.running and self.storage is None:
            self.spectator.say("stopping after the current step; press Ctrl-C again to stop at once")
        self._stop_announced = True
        for attempt in self.running:
            if self.interruption.at_once:
                attempt.end_now()
            else:
                attempt.request_stop()

    def _conclude(self, attempt: Attempt) -> None:
        attempt.close()
        self.running.remove(attempt)
        if attempt.wedged:
            self.wedged.append(attempt)
        for run in attempt.runs.values():
            self._conclude_run(attempt, run)

    def _conclude_run(self, attempt: Attempt, run: RunReport) -> None:
        point = run.point
        try:
            if run.held is not None:
                self.spectator.abandon(point.run_id)
                self._leave_to_others(point, run.held)
            elif run.storage is not None:
                self.storage = self.storage or run.storage
            else:
                record = attempt.final_record(run)
                self.limits.learn(point, record)
                self._ended(point, record)
        except RunIsHeld as held:
            self.spectator.abandon(point.run_id)
            self._leave_to_others(point, held.by)
        except StorageError as error:
            self.storage = self.storage or str(error)

    def _ended(self, point: Point, record: RunRecord) -> None:
        self.records[point.run_id] = record
        self.spectator.finish(point.run_id, record.status, record)
