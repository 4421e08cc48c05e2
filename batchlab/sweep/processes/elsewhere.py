"""Runs points in jobs of another package's launcher (submitit, joblib): the submitting side and the job's side."""

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from batchlab.config import SweepConfig
from batchlab.errors import StorageError
from batchlab.recording.run_folder import read_record
from batchlab.sweep.points import Point, gpus_of
from batchlab.sweep.processes.interruption import Interruption, other_handlers, watching_signals
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.processes.supervisor import run_grid
from batchlab.sweep.summary.progress import progress

JOBS = ".jobs"  # below runs_dir: `hydra.sweep.dir` of configs/config.yaml
LONGEST_LINE = 300  # characters
ENDS_A_TRACEBACK = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Launch = Callable[[Sequence[Point]], Sequence[str]]  # runs points, waits, returns the complaints of jobs


def run_elsewhere(points: Sequence[Point], launch: Launch, say: Callable[[str], None]) -> int | None:
    """Runs `points`, which were checked, with `launch`; the exit code of an interruption, else None.

    Failures of the launcher are only shown: the results of the points are in their records.
    """
    folder = Path(points[0].config.runs_dir) / JOBS
    keep_private(folder, say)
    say(f"points for the launcher: {len(points)}; its files and logs are in {folder}")
    with watching_signals(then=_leave) as interruption:
        try:
            complaints = launch(points)
        except KeyboardInterrupt:
            complaints = ["no longer waiting for the launcher: its queued and running jobs continue"]
        except Exception as error:
            # A job died or a submission was refused: any exception of any package, with any number of lines.
            why = gist(str(error)) or type(error).__name__
            complaints = [f"the launcher failed: {why}; its other jobs may continue"]
    for complaint in dict.fromkeys(complaints):
        say(complaint)
    return interruption.exit_code


def gist(text: str) -> str:
    """One line of a launcher's message: the error of the last traceback in it, otherwise its beginning."""
    errors = [line.strip() for line in text.splitlines() if ENDS_A_TRACEBACK.match(line)]
    return errors[-1] if errors else " ".join(text.split())[:LONGEST_LINE]


def run_in_job(point: Point, sweep: SweepConfig) -> int:
    """Runs a point that was checked before, in a job of another package's launcher; shows no table.

    A signal stops it after the step, with a checkpoint; then the launcher's own handler is called, which under
    submitit puts the job into the queue again.
    """
    with WarmServer() as server, progress(total=1) as spectator:
        sweep = not_forced_twice(point, sweep)
        outcome = run_grid([point], sweep, server, spectator, gpus_of([point], sweep.jobs))
    if outcome.storage is not None:
        raise StorageError(outcome.storage)
    return exit_code_of_job(outcome.exit_code)


def not_forced_twice(point: Point, sweep: SweepConfig) -> SweepConfig:
    """`sweep`, without `force` if this job started the point before Slurm put it into the queue again.

    With `force`, a point that takes longer than the time limit would always start at its first step.
    """
    record = read_record(point.folder)
    begun_by = record.environment.get("variables", {}).get("SLURM_JOB_ID") if record is not None else None
    if begun_by != os.environ.get("SLURM_JOB_ID") or "SLURM_RESTART_COUNT" not in os.environ:
        return sweep
    return replace(sweep, force=False)


def exit_code_of_job(exit_code: int) -> int:
    """The result of a job for its launcher; SystemExit if it must not return one.

    After SIGTERM, submitit leaves it to Slurm how the job ends, and a pre-empted job is started again: with a
    result, the launcher would no longer wait for it.
    """
    if exit_code in (130, 143) and other_handlers():
        raise SystemExit(exit_code)
    return exit_code


def keep_private(folder: Path, say: Callable[[str], None]) -> None:
    """Creates `folder` as a private folder; warns if it exists and others may write to it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.stat().st_mode & WRITABLE_BY_OTHERS:
            say(f"other users may write to {folder}, and the jobs execute its files (pickles): chmod go-w {folder}")


def _leave(interruption: Interruption) -> None:
    """Stops waiting for a launcher, which only handles Ctrl-C."""
    raise KeyboardInterrupt
