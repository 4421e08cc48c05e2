"""Plans what to do about each point, from its record on the disk: run, resume or skip it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batchlab.config import SweepConfig
from batchlab.printable import counted
from batchlab.recording.checkpoint_files import newest_step
from batchlab.recording.run_folder import read_record
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.points import Point, distinguishing

KEPT_UNTIL_RETRIED = (RunStatus.FAILED, RunStatus.TIMEOUT)  # another attempt would most likely end the same way


class Action(StrEnum):
    """What a sweep does about a point."""

    RUN = "run"
    RESUME = "resume"
    SKIP = "skip"


@dataclass(frozen=True)
class PointPlan:
    """What to do about one point, and why."""

    point: Point
    action: Action
    why: str
    record: RunRecord | None = None

    @property
    def previous_ended_at(self) -> str | None:
        """When the stored final result was recorded; None if there is none."""
        return self.record.ended_at if self.record is not None and self.record.status.is_final else None


def plan_point(point: Point, sweep: SweepConfig) -> PointPlan:
    """Decides from the point's record and from `force`, `retry` and `skip_larger`."""
    damaged: list[str] = []
    record = read_record(point.folder, damaged)
    if record is None:
        return PointPlan(point, Action.RUN, f"again, {damaged[0]}" if damaged else "new")
    if sweep.force:
        return PointPlan(point, Action.RUN, f"again (force), was {record.status}", record)
    if record.attempts == 0 and not sweep.skip_larger:
        return PointPlan(point, Action.RUN, "not tried before", record)
    if record.status in sweep.retry and record.status.is_final:
        return PointPlan(point, Action.RUN, f"again (retry), was {record.status}", record)
    kept = record.status.is_final or record.status in KEPT_UNTIL_RETRIED
    if kept and record.status not in sweep.retry:
        return PointPlan(point, Action.SKIP, str(record.status), record)
    step = newest_step(point.folder)
    if step is None:
        return PointPlan(point, Action.RUN, f"again from its first step, was {record.status}", record)
    return PointPlan(point, Action.RESUME, f"from step {step:,}, was {record.status}", record)


def plan_lines(plans: Sequence[PointPlan]) -> Iterator[str]:
    """The output of `--dry-run`: a line for each point and one for all."""
    for found, label in zip(plans, distinguishing([plan.point for plan in plans]), strict=True):
        yield f"{found.action:<7}{label}  ({found.why})"
    counts = Counter(found.action for found in plans)
    yield ", ".join(
        [counted(len(plans), "point"), *(f"{counts[action]:,} to {action}" for action in Action if counts[action])]
    )


def points_without_result(plans: Sequence[PointPlan]) -> str | None:
    """A message about points that are skipped although they have no final result."""
    left = [s for s in plans if s.action is Action.SKIP and s.record and not s.record.status.is_final]
    if not left:
        return None
    statuses = ",".join(sorted({str(s.record.status) for s in left if s.record}))
    return f"skipping {counted(len(left), 'point')} without a final result ({statuses}): --retry {statuses} runs them"
