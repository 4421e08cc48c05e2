"""DESIGN's preflight: a grid is checked before its first point, and what it found compared with what stands."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from batchlab.config import SweepConfig, to_dict
from batchlab.config.key import made_with
from batchlab.errors import BadRequest
from batchlab.host.exit_status import classify
from batchlab.recording.checkpoint_files import newest_step
from batchlab.recording.code_files import code_files, code_targets
from batchlab.recording.run_folder import read_records
from batchlab.records import Facts, RunRecord, RunStatus
from batchlab.sweep.changes import MadeWith, changes, refuse
from batchlab.sweep.points import Point
from batchlab.sweep.processes.server import WarmServer, ended
from batchlab.worker import entry as worker
from batchlab.worker.messages import DeviceFailed, Failed, GridAccepted, GridRefused

Answer = TypeVar("Answer")
A = TypeVar("A")
Reply = TypeVar("Reply")
UNFINISHED = (RunStatus.RUNNING, RunStatus.INTERRUPTED, RunStatus.KILLED, RunStatus.TIMEOUT)


class DeviceUnusable(BadRequest):
    """PyTorch cannot compute on a device of the grid."""

    def __init__(self, device: str, why: str, instead: str) -> None:
        super().__init__(f"device={device} cannot be used: {why}; {instead}, or use device=cpu")
        self.why, self.instead = why, instead


def or_on_cpu(points: Sequence[Point], do: Callable[[Sequence[Point]], Answer]) -> tuple[Answer, Sequence[Point]]:
    """What `do` makes of the points, and which they were: where no GPU can be used, device=auto takes the CPU.

    stderr says so. DeviceUnusable where the device of a point was asked for by its name.
    """
    try:
        return do(points), points
    except DeviceUnusable as unusable:
        if any(point.config.device != "cpu" and not point.auto for point in points):
            raise
        sys.stdout.flush()
        sys.stderr.write(f"device=auto uses the CPU: the GPU cannot be used, as {unusable.why}; {unusable.instead}\n")
    on_cpu = [replace(p, config=replace(p.config, device="cpu"), auto=False) if p.auto else p for p in points]
    return do(on_cpu), on_cpu


def check_device(point: Point, server: WarmServer) -> None:
    """DeviceUnusable where PyTorch cannot compute on the point's device; BadRequest where there is none of its name."""
    device = point.config.device
    if device == "cpu":
        return
    match reply_of(server, worker.try_device, point.config, doing=f"trying device={device}"):
        case DeviceFailed(device, why, instead):
            raise DeviceUnusable(device, why, instead)
        case Failed(reason):
            raise BadRequest(reason)
        case None:
            pass


def check_grid(points: Sequence[Point], server: WarmServer) -> list[Facts]:
    """What the preflight found of each point (`preflight.examine`); BadRequest, one line for each problem.

    DeviceUnusable comes first: on such a device nothing else can be found out.
    """
    if not points:
        return []
    grid = [point.config for point in points]
    match reply_of(server, worker.check, grid, doing="building the model and the data once"):
        case DeviceFailed(device, why, instead):
            raise DeviceUnusable(device, why, instead)
        case GridRefused(problems):
            raise BadRequest("; ".join(problems))
        case GridAccepted(facts):
            return list(facts)


def reply_of(server: WarmServer, examine: Callable[[A], Reply], argument: A, *, doing: str) -> Reply:
    """What `examine(argument)` returns, run in a child; BadRequest where its process ends without a reply."""
    process, connection = server.start(worker.reply, examine, argument)
    try:
        found: Reply = connection.recv()
        process.kill()  # it has said all; a thread of the user's code may not let it end
    except KeyboardInterrupt:
        process.kill()
        raise
    except EOFError:
        ended(process)
        status, reason = classify(process.exitcode or 0, stopped_by_us=False, oom_kills=0)
        raise BadRequest(f"{doing} ended its process ({status}: {reason})") from None
    ended(process)
    return found


def check_unchanged(points: Sequence[Point], found: Sequence[Facts], sweep: SweepConfig) -> None:
    """BadRequest where the points that stand in these studies were made with other code, data, PyTorch or device.

    `points` are to be run, `found` is what `check_grid` says of them.
    """
    if sweep.force or sweep.accept_changed:
        return
    studies: dict[Path, list[RunRecord]] = {}
    kinds: dict[tuple[Path, str], tuple[Point, Facts]] = {}
    for point, facts in zip(points, found, strict=True):
        kinds.setdefault((point.study_folder, made_with(point.config)), (point, facts))
    for (study, kind), (point, facts) in kinds.items():
        if study not in studies:
            studies[study] = [
                r for r in read_records(study) if r.attempts and (r.status.is_final or _goes_on(study, r))
            ]
        existing = [record for record in studies[study] if made_with(record.config) == kind]
        if not existing:
            continue
        now = MadeWith(code_files(code_targets(to_dict(point.config))), point.config.data, facts)
        accepted = [record for record in existing if record.changes_accepted]
        if any(not changes([record], now) for record in accepted):
            continue  # the difference was accepted when that point was run
        if sentences := changes(existing, now):
            raise refuse(sentences, study)


def _goes_on(study: Path, record: RunRecord) -> bool:
    return record.status in UNFINISHED and newest_step(study / record.run_id) is not None
