"""A sweep from its points to its table: the plan, the check, the runs, and the results."""

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from batchlab.config import SweepConfig
from batchlab.errors import BadRequest, StorageError
from batchlab.host.gpu_pool import models, without_other_programs
from batchlab.host.nvml import Gpu
from batchlab.printable import counted, printable
from batchlab.recording import disk
from batchlab.recording.results import write_results
from batchlab.recording.run_folder import hold_study, read_record
from batchlab.recording.study_file import add_published
from batchlab.records import Facts
from batchlab.sweep.changes import stale
from batchlab.sweep.checks import check_grid, check_unchanged, or_on_cpu
from batchlab.sweep.planning import Action, plan_lines, plan_point, points_without_result
from batchlab.sweep.points import Point, Spectator, SweepOutcome, exit_code, gpus_of, without_duplicates
from batchlab.sweep.processes.elsewhere import Launch, run_elsewhere
from batchlab.sweep.processes.interruption import Interruption, watching_signals
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.processes.supervisor import run_grid
from batchlab.sweep.summary.progress import progress
from batchlab.sweep.summary.reporting import REPORT, report
from batchlab.sweep.summary.table import show
from batchlab.tensorboard.study_view import rebuild

MIXED = "the GPUs of this sweep are of several models, whose speeds and memory peaks are not compared"

SAME_WEIGHTS = (
    "the initial weights are the same for all seeds (a pretrained model?): seeds differ in the order of the data, "
    "dropout and the like only"
)


def run_sweep(
    points: Sequence[Point], sweep: SweepConfig, *, elsewhere: Launch | None = None, remote: bool = False
) -> int:
    """Runs the unfinished `points`, shows the comparison of all of them, and returns the exit code.

    The whole grid is checked first: BadRequest means nothing was started. `elsewhere` runs the points instead of
    this machine's supervisor; if `remote`, on other machines, whose GPUs are not known here. With `dry_run` it only
    shows what it would do.
    """
    return run_sweep_and_points(points, sweep, elsewhere=elsewhere, remote=remote)[0]


def run_sweep_and_points(
    points: Sequence[Point], sweep: SweepConfig, *, elsewhere: Launch | None = None, remote: bool = False
) -> tuple[int, Sequence[Point]]:
    """As `run_sweep`, with the points used: those of device=auto are on the CPU if no GPU can be used."""
    return or_on_cpu(points, lambda chosen: _run_all(chosen, sweep, elsewhere, remote=remote))


def _run_all(points: Sequence[Point], sweep: SweepConfig, elsewhere: Launch | None, *, remote: bool) -> int:
    distinct = without_duplicates(points)
    removed = len(points) - len(distinct)
    gpus = gpus_of(distinct, sweep.jobs) if elsewhere is None else ()
    if elsewhere is not None and sweep.jobs > 1:
        raise BadRequest(f"jobs={sweep.jobs} applies to this machine only: use the launcher's own setting")
    plans = [plan_point(point, sweep) for point in distinct]
    if sweep.dry_run:
        return _say_plan(list(plan_lines(plans)), removed)
    left = [found.point for found in plans if found.action is not Action.SKIP]
    final = sum(found.action is Action.SKIP and found.previous_ended_at is not None for found in plans)
    try:
        # The supervisor handles signals while points run; before that, only the processes started here must end.
        with watching_signals(then=_give_up) as interruption, WarmServer() as server:
            if left:
                server.warm_up()
                for study in dict.fromkeys(point.study_folder for point in left):
                    _try_to_write(study)
            free = without_other_programs(gpus) if left else ()
            checking = server.seeing([gpu.uuid for gpu in (*free, *gpus)][:1])
            with progress(total=len(left) + final, skipped=final) as spectator:
                if removed:
                    spectator.say(f"{counted(removed, 'duplicate')} removed from the grid")
                if (text := points_without_result(plans)) is not None:
                    spectator.say(text)
                if len(models(gpus)) > 1:
                    spectator.say(f"{MIXED}: {', '.join(models(gpus))}")
                facts = _check(left, checking, spectator, remote=remote)
                if any(fact.same_weights for fact in facts):
                    spectator.say(SAME_WEIGHTS)
                check_unchanged(left, facts, sweep)
                if elsewhere is None:
                    data = {point.folder: one.data_fingerprint for point, one in zip(left, facts, strict=True)}
                    distinct = [replace(point, data_fingerprint=data.get(point.folder)) for point in distinct]
                _keep_published(distinct)
                outcome = _run(distinct, left, sweep, server, spectator, elsewhere, gpus)
    except KeyboardInterrupt:
        _print_error("stopped before a point was started")
        return interruption.exit_code or 130
    refused = _show(outcome, distinct)
    if sweep.report and refused is None and outcome.storage is None and outcome.exit_code not in (130, 143):
        _report(outcome, distinct, renew=bool(left))
    if outcome.storage is not None or refused is not None:
        raise StorageError(f"{outcome.storage or refused}; {_kept(outcome, distinct)}")
    if outcome.exit_code in (130, 143):
        _print_error(_kept(outcome, distinct))
    return outcome.exit_code


def _check(points: Sequence[Point], server: WarmServer, spectator: Spectator, *, remote: bool) -> list[Facts]:
    """The result of `check_grid`; points for GPUs of other machines are checked on the CPU."""
    on_gpus = [remote and point.config.device != "cpu" for point in points]
    if not any(on_gpus):
        return check_grid(points, server)
    spectator.say(
        f"device={points[on_gpus.index(True)].config.device} is on the machines of the jobs: data, model and sizes are "
        "checked here, on the CPU; each job checks whether its GPU supports the precision and has enough memory"
    )
    found = check_grid([_on_cpu(p) if far else p for p, far in zip(points, on_gpus, strict=True)], server)
    return [replace(facts, device_name=None) if far else facts for facts, far in zip(found, on_gpus, strict=True)]


def _on_cpu(point: Point) -> Point:
    return replace(point, config=replace(point.config, device="cpu", precision="fp32"))


def _try_to_write(study: Path) -> None:
    """StorageError, before anything is started, if the study cannot be written; leaves no file.

    It tries to write, since permissions say nothing about a full or read-only disk, nor about the superuser.
    """
    place = next(path for path in (study, *study.absolute().parents) if path.exists())
    probe = place / f".batchlab-probe-{os.getpid()}.tmp"
    with hold_study(study) if place == study else contextlib.nullcontext():
        try:
            disk.write_atomically(probe, "x")
            disk.remove(probe)
        except StorageError as error:
            raise StorageError.of(error, study) from None


def _keep_published(points: Sequence[Point]) -> None:
    """Saves published figures in the folder of their study, for every report of it."""
    for study in dict.fromkeys(point.study_folder for point in points):
        figures = [figure for point in points if point.study_folder == study for figure in point.published]
        if figures and (damaged := add_published(study, figures)) is not None:
            sys.stderr.write(f"batchlab: {damaged}\n")


def _say_plan(lines: Sequence[str], removed: int) -> int:
    if removed:
        sys.stdout.write(f"{counted(removed, 'duplicate')} removed from the grid\n")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _run(
    points: Sequence[Point],
    left: Sequence[Point],
    sweep: SweepConfig,
    server: WarmServer,
    spectator: Spectator,
    elsewhere: Launch | None,
    gpus: Sequence[Gpu],
) -> SweepOutcome:
    if elsewhere is None:
        return run_grid(points, sweep, server, spectator, gpus)
    interrupted = run_elsewhere(left, elsewhere, spectator.say) if left else None
    found = [read_record(point.folder) for point in points]
    records = tuple(record for record in found if record is not None)
    code = exit_code(records, interrupted)
    return SweepOutcome(records, len(points) - len(left), code or (3 if len(records) < len(points) else 0))


def _show(outcome: SweepOutcome, points: Sequence[Point]) -> str | None:
    """Shows the table of each study of the grid and writes the study's files; disk errors do not hide a table.

    Returns the disk error of `results.csv`; one of TensorBoard's view, which can be rebuilt, is only shown.
    """
    refused = None
    by_id = {(record.study, record.run_id): record for record in outcome.records}
    for study in dict.fromkeys(point.study_folder for point in points):
        shown = [
            by_id[key]
            for point in points
            if point.study_folder == study and (key := (point.config.study_name, point.run_id)) in by_id
        ]
        if not shown:
            continue
        try:
            write_results(study)
        except OSError as error:
            refused = str(error)
        try:
            rebuild(study)
        except OSError as error:
            _print_error(f"batchlab: {error}")
        show(shown, study)
        for sentence in stale([record for record in shown if record.status.is_final], Path.cwd()):
            _print_error(f"batchlab: {sentence}")
    return refused


def _report(outcome: SweepOutcome, points: Sequence[Point], *, renew: bool) -> None:
    """Writes the report of each study with several points; an existing one is kept if nothing was run since."""
    for study in dict.fromkeys(point.study_folder for point in points):
        count = sum(point.study_folder == study for point in points)
        if not (count > 1 and outcome.records):
            continue
        if not renew and (study / REPORT).exists():
            sys.stdout.write(f"Report: {printable(study / REPORT)}\n")
        else:
            width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            sys.stdout.flush()
            about = [point.run_id for point in points if point.study_folder == study]
            report(study, width=width, stdout=sys.stdout, stderr=sys.stderr, about=about)


def _give_up(interruption: Interruption) -> None:
    raise KeyboardInterrupt


def _kept(outcome: SweepOutcome, points: Sequence[Point]) -> str:
    done = sum(record.status.is_final for record in outcome.records)
    return f"{done} of {counted(len(points), 'point')} done and saved"


def _print_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
