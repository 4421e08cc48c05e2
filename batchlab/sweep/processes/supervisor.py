"""Runs the points of a grid as jobs, a process for each; touches no device and imports no torch."""

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
from batchlab.sweep.points import Point, Spectator, SweepOutcome, distinguishing, exit_code
from batchlab.sweep.processes.attempt import Attempt, Heard, begin, keep
from batchlab.sweep.processes.interruption import Interruption, watching_signals
from batchlab.sweep.processes.jobs import Scheduler
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.standing import Action, standing

POLL_SECONDS = 0.2  # how soon a signal is acted on, and a folder looked at that another sweep held


def run_grid(
    points: Sequence[Point], sweep: SweepConfig, server: WarmServer, spectator: Spectator, gpus: Sequence[Gpu] = ()
) -> SweepOutcome:
    """Runs every point that has no answer yet, `jobs` at once; whatever happens to one, the next is run.

    Where there are `gpus`, each point gets one of them that no other point has, of this sweep or another's.
    A point that another sweep is running is left to it, and waited for. A signal ends the sweep after the running
    points' steps; the points that were not begun are not in the records.
    """
    with watching_signals() as interruption:
        running = _Sweep(points, sweep, server, spectator, interruption, gpus)
        try:
            running.run()
        finally:
            running.end_what_is_left()
    interruption.hand_over()
    return running.outcome()


class _Sweep:
    """A sweep under way."""

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
        self.elsewhere: deque[Point] = deque()  # another sweep holds them
        self.running: list[Attempt] = []
        self.wedged: list[Attempt] = []  # kept, for what they were given is not free
        self.records: dict[str, RunRecord] = {}
        self.skipped = 0
        self.limits = Limits(skip_larger=sweep.skip_larger)
        self.storage: str | None = None
        self._told_to_stop = False
        self._said_it_waits = False
        self._others: set[str] = set()  # run ids that another sweep was seen to run

    @property
    def stopping(self) -> bool:
        return self.interruption.count > 0 or self.storage is not None

    def run(self) -> None:
        """To the end: nothing runs, and nothing more is to be run."""
        while True:
            self._fill()
            if not self.running and (self.stopping or not (self.waiting or self.elsewhere)):
                return
            self._listen()
            self._stop_where_told()
            for attempt in [a for a in self.running if a.finished]:
                self._conclude(attempt)

    def outcome(self) -> SweepOutcome:
        records = tuple(self.records[p.run_id] for p in self.points if p.run_id in self.records)
        code = 74 if self.storage is not None else exit_code(records, self.interruption.exit_code)
        return SweepOutcome(records, self.skipped, code, self.storage)

    def end_what_is_left(self) -> None:
        """No process outlives the sweep."""
        for attempt in self.running:
            attempt.end_now()
            attempt.close()

    def _fill(self) -> None:
        """Starts what there is room for."""
        while self.waiting and len(self.running) < self.sweep.jobs and not self.stopping:
            point = self.waiting.popleft()
            found = standing(point, self.sweep)
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
        """Whether there was a device for it."""
        scheduled = self.scheduler.job_of(point, wedged=len(self.wedged))
        if scheduled is None:
            self._say_what_is_waited_for()
            return False
        self.spectator.start(point.run_id, self.labels[point.run_id], 0)
        self.running.append(begin(scheduled[0], self.sweep, self.server, scheduled[1]))
        return True

    def _say_what_is_waited_for(self) -> None:
        if not self.running and not self._said_it_waits:
            self._said_it_waits = True
            self.spectator.say(
                f"waiting for a GPU: other sweeps or programs use the {counted(len(self.gpus), 'GPU')} that this one "
                "may have (nvidia-smi lists the programs)"
            )

    def _leave_to_others(self, point: Point, by: str) -> None:
        if not self._others:
            self.spectator.say(f"{self.labels[point.run_id]} {by}: it is left to that sweep")
        self._others.add(point.run_id)
        self.elsewhere.append(point)

    def _listen(self) -> None:
        """Waits for news of the running points, for a moment at most."""
        if not self.running:
            time.sleep(POLL_SECONDS)  # for other sweeps; a signal ends it
        handles = [handle for a in self.running for handle in (a.connection, a.process.sentinel)]
        ready = wait(handles, timeout=POLL_SECONDS) if handles else []
        for attempt in self.running:
            if attempt.connection in ready:
                attempt.hear(self.spectator)
            elif attempt.process.sentinel in ready:
                attempt.finished = True
            attempt.watch_the_clock()
        # What others held may be free again, or have its answer.
        if len(self.running) < self.sweep.jobs and not self.waiting:
            self.waiting, self.elsewhere = self.elsewhere, deque()

    def _stop_where_told(self) -> None:
        if not self.stopping:
            return
        if not self._told_to_stop and self.running and self.storage is None:
            self.spectator.say("stopping after this step; press Ctrl-C again to stop now")
        self._told_to_stop = True
        for attempt in self.running:
            if self.interruption.at_once:
                attempt.end_now()
            else:
                attempt.ask()

    def _conclude(self, attempt: Attempt) -> None:
        attempt.close()
        self.running.remove(attempt)
        if attempt.wedged:
            self.wedged.append(attempt)
        for run in attempt.runs.values():
            self._conclude_run(attempt, run)

    def _conclude_run(self, attempt: Attempt, run: Heard) -> None:
        point = run.point
        try:
            if run.held is not None:
                self.spectator.abandon(point.run_id)
                self._leave_to_others(point, run.held)
            elif run.storage is not None:
                self.storage = self.storage or run.storage
            else:
                record = attempt.concluded(run)
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
