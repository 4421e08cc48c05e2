"""Points in the jobs of another package's launcher (submitit, joblib): what is done on this side, and on theirs."""

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
from batchlab.sweep.processes.interruption import Interruption, listening, watching_signals
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.processes.supervisor import run_grid
from batchlab.sweep.summary.progress import progress

JOBS = ".jobs"  # below runs_dir: `hydra.sweep.dir` of configs/config.yaml
LONGEST_LINE = 300  # characters
ENDS_A_TRACEBACK = re.compile(r"[\w.]+(Error|Exception|Exit|Interrupt)\b")
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

Launch = Callable[[Sequence[Point]], Sequence[str]]  # runs points and waits for them; what its jobs complained of


def run_elsewhere(points: Sequence[Point], launch: Launch, say: Callable[[str], None]) -> int | None:
    """Has `points`, which were checked, run by `launch`; the exit code of an interruption, else None.

    Whatever becomes of the launcher is said and no more: what became of the points is in their records.
    """
    folder = Path(points[0].config.runs_dir) / JOBS
    keep_private(folder, say)
    say(f"points for the launcher: {len(points)}; its own files and its logs lie in {folder}")
    with watching_signals(then=_leave) as interruption:
        try:
            complaints = launch(points)
        except KeyboardInterrupt:
            complaints = ["no longer waiting for the launcher: jobs that wait or run in a queue go on"]
        except Exception as error:
            # A job that died, a refused submission: any exception of any package, and in as many lines as it likes.
            complaints = [
                f"the launcher gave up: {gist(str(error)) or type(error).__name__}; other jobs of it may go on"
            ]
    for complaint in dict.fromkeys(complaints):
        say(complaint)
    return interruption.exit_code


def gist(text: str) -> str:
    """One line of what a launcher says: where it holds a job's traceback, the error at its end; else its start."""
    errors = [line.strip() for line in text.splitlines() if ENDS_A_TRACEBACK.match(line)]
    return errors[-1] if errors else " ".join(text.split())[:LONGEST_LINE]


def run_in_job(point: Point, sweep: SweepConfig) -> int:
    """Runs a point that was checked before, in a job of another package's launcher; no table.

    A signal ends it after the step, with a checkpoint; then the launcher's own handler has the word, which under
    submitit puts the job into the queue again.
    """
    with WarmServer() as server, progress(total=1) as spectator:
        sweep = not_forced_twice(point, sweep)
        outcome = run_grid([point], sweep, server, spectator, gpus_of([point], sweep.jobs))
    if outcome.storage is not None:
        raise StorageError(outcome.storage)
    return last_word(outcome.exit_code)


def not_forced_twice(point: Point, sweep: SweepConfig) -> SweepConfig:
    """`sweep`, without `force` where this job began it before Slurm put it into the queue again.

    With it, a point that takes longer than a time limit would begin at its first step for ever.
    """
    record = read_record(point.folder)
    begun_by = record.environment.get("variables", {}).get("SLURM_JOB_ID") if record is not None else None
    if begun_by != os.environ.get("SLURM_JOB_ID") or "SLURM_RESTART_COUNT" not in os.environ:
        return sweep
    return replace(sweep, force=False)


def last_word(exit_code: int) -> int:
    """What a job returns to its launcher; SystemExit where it must not return.

    Under submitit SIGTERM leaves it to Slurm how the job ends, and a job that was pre-empted is started again: a
    result would end the wait for it.
    """
    if exit_code in (130, 143) and listening():
        raise SystemExit(exit_code)
    return exit_code


def keep_private(folder: Path, say: Callable[[str], None]) -> None:
    """Makes `folder` for its owner alone; says so where it is there already and others may write to it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.stat().st_mode & WRITABLE_BY_OTHERS:
            say(
                f"{folder} may be written to by others, and the jobs run what they find there (pickles): "
                f"chmod go-w {folder}"
            )


def _leave(interruption: Interruption) -> None:
    """Ends the wait for a launcher, which knows Ctrl-C and no other signal."""
    raise KeyboardInterrupt
