"""Ask twice, run once: how each point stands on the disk, and so what is to be done about it."""

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

STANDS_UNTIL_RETRIED = (RunStatus.FAILED, RunStatus.TIMEOUT)  # the same again would most likely end the same


class Action(StrEnum):
    """What a sweep does about a point."""

    RUN = "run"
    RESUME = "resume"
    SKIP = "skip"


@dataclass(frozen=True)
class Standing:
    """One point, as it was found."""

    point: Point
    action: Action
    why: str
    record: RunRecord | None = None

    @property
    def previous_ended_at(self) -> str | None:
        """When the answer was given that is to be measured again; None where none stands."""
        return self.record.ended_at if self.record is not None and self.record.status.is_final else None


def standing(point: Point, sweep: SweepConfig) -> Standing:
    """Reads the point's record, and decides by it and by `force`, `retry` and `skip_larger`."""
    damaged: list[str] = []
    record = read_record(point.folder, damaged)
    if record is None:
        return Standing(point, Action.RUN, f"again, {damaged[0]}" if damaged else "new")
    if sweep.force:
        return Standing(point, Action.RUN, f"again (force), was {record.status}", record)
    if record.attempts == 0 and not sweep.skip_larger:
        return Standing(point, Action.RUN, "not tried before", record)
    if record.status in sweep.retry and record.status.is_final:
        return Standing(point, Action.RUN, f"again (retry), was {record.status}", record)
    stands = record.status.is_final or record.status in STANDS_UNTIL_RETRIED
    if stands and record.status not in sweep.retry:
        return Standing(point, Action.SKIP, str(record.status), record)
    step = newest_step(point.folder)
    if step is None:
        return Standing(point, Action.RUN, f"again from its first step, was {record.status}", record)
    return Standing(point, Action.RESUME, f"from step {step:,}, was {record.status}", record)


def plan_lines(standings: Sequence[Standing]) -> Iterator[str]:
    """What a sweep would do, a line for each point and one for all: `--dry-run`."""
    for found, label in zip(standings, distinguishing([s.point for s in standings]), strict=True):
        yield f"{found.action:<7}{label}  ({found.why})"
    counts = Counter(found.action for found in standings)
    yield ", ".join(
        [counted(len(standings), "point"), *(f"{counts[action]:,} to {action}" for action in Action if counts[action])]
    )


def stands_failed(standings: Sequence[Standing]) -> str | None:
    """What to say of points that are left alone although they have no answer."""
    left = [s for s in standings if s.action is Action.SKIP and s.record and not s.record.status.is_final]
    if not left:
        return None
    statuses = ",".join(sorted({str(s.record.status) for s in left if s.record}))
    return (
        f"{counted(len(left), 'point')} without an answer left as they are ({statuses}): --retry {statuses} runs them"
    )
