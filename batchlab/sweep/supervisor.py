"""Runs the points of a grid, a process for each; touches no device and imports no torch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Protocol

from batchlab.config import RunConfig, to_dict
from batchlab.errors import BadRequest
from batchlab.recording.files import now_utc
from batchlab.recording.masking import masked, masked_overrides
from batchlab.recording.run_folder import read_record, write_record
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep import worker
from batchlab.sweep.endings import classify, oom_kill_count
from batchlab.sweep.identity import group_id, run_folder, run_id
from batchlab.sweep.interruption import Interruption, watching_signals
from batchlab.sweep.server import WarmServer

POLL_SECONDS = 0.2  # how soon a signal is acted on
KILL_AFTER_SECONDS = 20.0  # between asking a worker to end and ending it


@dataclass(frozen=True)
class Point:
    """One cell of the grid: what to run, and how it was asked for."""

    config: RunConfig
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep came to: the records of the grid's points, in its order, as far as it got."""

    records: tuple[RunRecord, ...]
    skipped: int  # points that had their answer already
    exit_code: int


class Spectator(Protocol):
    """Who shows the sweep to a person (`batchlab.sweep.progress`)."""

    def start(self, run_id: str, label: str, budget_examples: int) -> None:
        """A point begins; its budget is 0 until it is known."""

    def expect(self, budget_examples: int) -> None:
        """The running point will train on so many examples."""

    def update(self, examples: int, loss: float | None, examples_per_second: float | None) -> None:
        """How far the running point is."""

    def finish(self, run_id: str, status: RunStatus, record: RunRecord | None) -> None:
        """It has ended."""

    def say(self, text: str) -> None:
        """Something the person should know."""


def is_answered(point: Point) -> RunRecord | None:
    """The record of a point that has its answer already, else None."""
    record = read_record(run_folder(point.config))
    return record if record is not None and record.status.is_answer else None


def check_grid(points: Sequence[Point], server: WarmServer) -> None:
    """DESIGN's preflight of the points that are to run: BadRequest, one line for each problem, or nothing."""
    if not points:
        return
    process, connection = server.start(worker.check, [to_dict(point.config) for point in points])
    try:
        found = connection.recv()
    except EOFError:
        process.join()
        status, reason = classify(process.exitcode or 0, stopped_by_us=False, oom_kills=0)
        raise BadRequest(f"building the model and the data once ended its process ({status}: {reason})") from None
    process.join()
    if found:
        raise BadRequest("\n".join(found))


def run_grid(points: Sequence[Point], server: WarmServer, spectator: Spectator) -> SweepOutcome:
    """Runs every point that has no answer yet, in order; whatever happens to one, the next is run.

    A signal ends the sweep after the running point's step; the points that were not begun are not in the records.
    """
    records: list[RunRecord] = []
    skipped = 0
    labels = distinguishing(points)
    with watching_signals() as interruption:
        for point, label in zip(points, labels, strict=True):
            record = is_answered(point)
            if record is not None:
                skipped += 1
            elif interruption.count:
                continue
            else:
                record = _run_point(point, label, server, spectator, interruption)
            records.append(record)
    return SweepOutcome(tuple(records), skipped, exit_code(records, interruption.exit_code))


def exit_code(records: Sequence[RunRecord], interrupted: int | None) -> int:
    """0 every point has an answer, 3 some have none, 130 or 143 interrupted."""
    if interrupted is not None:
        return interrupted
    return 0 if all(record.status.is_answer for record in records) else 3


def distinguishing(points: Sequence[Point]) -> list[str]:
    """What tells each point from the others, in the words it was asked for: `batch_size=8 seed=1`."""
    shared = set.intersection(*(set(point.overrides) for point in points)) if len(points) > 1 else set()
    return [
        " ".join(word.lstrip("+") for word in masked_overrides(w for w in point.overrides if w not in shared))
        or f"batch_size={point.config.batch_size}"
        for point in points
    ]


def _run_point(
    point: Point, label: str, server: WarmServer, spectator: Spectator, interruption: Interruption
) -> RunRecord:
    config, name, folder = point.config, run_id(point.config), run_folder(point.config)
    started, kills_before = time.monotonic(), oom_kill_count()
    identity = {"run_id": name, "study": config.study_name, "group": group_id(config), "overrides": point.overrides}
    process, connection = server.start(worker.work, to_dict(config), str(folder), identity)
    spectator.start(name, label, 0)
    record = _follow(process, connection, spectator, interruption)
    process.join()
    if record is None:
        status, reason = classify(
            process.exitcode if process.exitcode is not None else 1,
            stopped_by_us=interruption.count > 0,
            oom_kills=oom_kill_count() - kills_before,
        )
        left = read_record(folder) or RunRecord(
            run_id=name,
            study=config.study_name,
            status=status,
            config=masked(to_dict(config)),
            seed=config.seed,
            batch_size=config.batch_size,
            overrides=tuple(masked_overrides(point.overrides)),
            started_at=now_utc(),
        )
        record = replace(
            left, status=status, reason=reason, wall_seconds=time.monotonic() - started, ended_at=now_utc()
        )
        write_record(folder, record)
    spectator.finish(name, record.status, record)
    return record


def _follow(
    process: ForkServerProcess, connection: Connection, spectator: Spectator, interruption: Interruption
) -> RunRecord | None:
    """Passes on what the worker says until it ends; its record, or None where it left none."""
    asked_at: float | None = None
    record = None
    while True:
        ready = wait([connection, process.sentinel], timeout=POLL_SECONDS)
        if interruption.count and asked_at is None:
            spectator.say("stopping after this step; press Ctrl-C again to stop now")
            process.terminate()
            asked_at = time.monotonic()
        if interruption.count > 1 or (asked_at is not None and time.monotonic() - asked_at > KILL_AFTER_SECONDS):
            process.kill()
        if connection in ready:
            try:
                kind, content = connection.recv()
            except (EOFError, OSError):
                return record
            if kind == "record":
                record = RunRecord.from_dict(content)
            elif kind == "planned":
                spectator.expect(content)
            else:
                spectator.update(
                    content["examples"], content.get("train/loss"), content.get("speed/examples_per_second")
                )
        elif process.sentinel in ready:
            return record
