"""DESIGN's preflight: checks a grid before its first point, and compares its code and data with earlier runs."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

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

Result = TypeVar("Result")
A = TypeVar("A")
Reply = TypeVar("Reply")
UNFINISHED = (RunStatus.RUNNING, RunStatus.INTERRUPTED, RunStatus.KILLED, RunStatus.TIMEOUT)

# A problem that names a line of code is an error as PyTorch or the user's code words it (`training.user_errors`); the
# others say what to type.
AT_A_LINE = re.compile(r"\(\S.*, line \d+, in .+\)")
SEE_CHECK = ". Run `batchlab check` with the same arguments: it may say how to fix this"


class DeviceUnusable(BadRequest):
    """PyTorch cannot use a device of the grid."""

    def __init__(self, device: str, why: str, instead: str) -> None:
        super().__init__(f"device={device} cannot be used: {why}; {instead}, or use device=cpu")
        self.why, self.instead = why, instead


def or_on_cpu(points: Sequence[Point], do: Callable[[Sequence[Point]], Result]) -> tuple[Result, Sequence[Point]]:
    """The result of `do` and its points: if the GPU cannot be used, points of device=auto are moved to the CPU.

    Then stderr says so. DeviceUnusable if the device of a point was requested by name.
    """
    try:
        return do(points), points
    except DeviceUnusable as unusable:
        if any(point.config.device != "cpu" and not point.auto for point in points):
            raise
        sys.stdout.flush()
        sys.stderr.write(f"device=auto uses the CPU: the GPU cannot be used: {unusable.why}; {unusable.instead}\n")
    on_cpu = [replace(p, config=replace(p.config, device="cpu"), auto=False) if p.auto else p for p in points]
    return do(on_cpu), on_cpu


def check_device(point: Point, server: WarmServer) -> None:
    """DeviceUnusable if PyTorch cannot use the point's device; BadRequest if there is no such device."""
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
    """The facts about each point (`preflight.examine`); BadRequest lists the problems.

    DeviceUnusable comes first: nothing else can be checked on such a device.
    """
    if not points:
        return []
    grid = [point.config for point in points]
    match reply_of(server, worker.check, grid, doing="building the model and the data once"):
        case DeviceFailed(device, why, instead):
            raise DeviceUnusable(device, why, instead)
        case GridRefused(problems):
            raise BadRequest("; ".join(problems) + SEE_CHECK * any(map(AT_A_LINE.search, problems)))
        case GridAccepted(facts):
            return list(facts)


def reply_of(server: WarmServer, examine: Callable[[A], Reply], argument: A, *, doing: str) -> Reply:
    """The result of `examine(argument)` in a child process; BadRequest if the process ends without a reply."""
    with _child(server, worker.reply, examine, argument, doing=lambda: doing) as connection:
        found: Reply = connection.recv()
    return found


def replies_of(
    server: WarmServer, examine: Callable[[A], Iterator[Reply]], argument: A, *, doing: Callable[[], str]
) -> Iterator[Reply]:
    """What `examine(argument)` yields in a child process, each at once; BadRequest if the process ends before, with
    what it was `doing` then."""
    with _child(server, worker.reply_each, examine, argument, doing=doing) as connection:
        while (found := connection.recv()) is not None:
            yield found


@contextlib.contextmanager
def _child(
    server: WarmServer, reply: Callable[..., None], *arguments: Any, doing: Callable[[], str]
) -> Iterator[Connection]:
    process, connection = server.start(reply, *arguments)
    try:
        yield connection
    except EOFError:
        ended(process)
        _, reason = classify(process.exitcode or 0, stopped_by_us=False, oom_kills=0)
        raise BadRequest(f"{doing()} failed: {reason}") from None
    finally:
        process.kill()  # not needed any more; a thread of the user's code could keep it alive
    ended(process)


def check_unchanged(points: Sequence[Point], found: Sequence[Facts], sweep: SweepConfig) -> None:
    """BadRequest if these studies have points that were made with other code, data, PyTorch or device.

    `points` are to be run, `found` is the result of `check_grid` for them.
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
                r for r in read_records(study) if r.attempts and (r.status.is_final or _can_resume(study, r))
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


def _can_resume(study: Path, record: RunRecord) -> bool:
    return record.status in UNFINISHED and newest_step(study / record.run_id) is not None
