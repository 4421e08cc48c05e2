"""A sweep from its points to its table: what is left to run, the check, the runs, and what is made of them."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from batchlab.recording.results import write_results
from batchlab.recording.run_folder import read_record
from batchlab.recording.study_view import rebuild
from batchlab.records import RunRecord
from batchlab.sweep.identity import run_folder, run_id, study_folder
from batchlab.sweep.progress import progress
from batchlab.sweep.server import WarmServer
from batchlab.sweep.supervisor import Point, Spectator, SweepOutcome, check_grid, exit_code, is_answered, run_grid
from batchlab.sweep.table import show

Launch = Callable[[Sequence[Point]], None]  # runs points that were checked, somewhere


def conduct(points: Sequence[Point], *, elsewhere: Launch | None = None) -> int:
    """Runs what is left of `points`, shows the comparison of all of them, and returns the exit code.

    The whole grid is checked first: BadRequest means nothing was started. `elsewhere` runs the points in place of
    this machine's supervisor.
    """
    with WarmServer() as server:
        distinct = without_duplicates(points)
        left = [point for point in distinct if is_answered(point) is None]
        if left:
            server.warm_up()
        with progress(total=len(distinct), skipped=len(distinct) - len(left)) as spectator:
            if len(distinct) < len(points):
                spectator.say(f"{counted(len(points) - len(distinct), 'duplicate')} removed from the grid")
            check_grid(left, server)
            outcome = _run(distinct, left, server, spectator, elsewhere)
    for study_dir in dict.fromkeys(study_folder(point.config) for point in distinct):
        shown = [r for r, folder in _with_folders(outcome, distinct) if folder.parent == study_dir]
        if shown:
            rebuild(study_dir)
            write_results(study_dir)
            show(shown, study_dir)
    if outcome.exit_code in (130, 143):
        kept = sum(record.status.is_answer for record in outcome.records)
        _tell(f"{kept} of {counted(len(distinct), 'point')} done and kept")
    return outcome.exit_code


def run_one(point: Point) -> int:
    """Runs a point that was checked before, in a job of another package's launcher; no table."""
    with WarmServer() as server, progress(total=1) as spectator:
        return run_grid([point], server, spectator).exit_code


def without_duplicates(points: Sequence[Point]) -> list[Point]:
    """The first of each run id, in order: `8,32,32` and `lr=0.1,1e-1` are two runs, not three and two."""
    return list({(study_folder(point.config), run_id(point.config)): point for point in reversed(points)}.values())[
        ::-1
    ]


def counted(number: int, noun: str) -> str:
    """`1 point`, `2 points`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _run(
    points: Sequence[Point], left: Sequence[Point], server: WarmServer, spectator: Spectator, elsewhere: Launch | None
) -> SweepOutcome:
    if elsewhere is None:
        return run_grid(points, server, spectator)
    if left:
        elsewhere(left)
    found = [read_record(run_folder(point.config)) for point in points]
    records = tuple(record for record in found if record is not None)
    missing = len(points) - len(records)
    return SweepOutcome(records, len(points) - len(left), 3 if missing else exit_code(records, None))


def _with_folders(outcome: SweepOutcome, points: Sequence[Point]) -> list[tuple[RunRecord, Path]]:
    """Each record with its folder; an interrupted sweep has records of its first points only."""
    left = list(outcome.records)
    found = []
    for point in points:
        if left and left[0].run_id == run_id(point.config) and left[0].study == point.config.study_name:
            found.append((left.pop(0), run_folder(point.config)))
    return found


def _tell(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
