"""Skips points that cannot fit, because one that needs no more memory did not."""

from batchlab.config import key, to_dict
from batchlab.config.key import requested
from batchlab.config.option_row import IDENTITY, MEMORY, Role
from batchlab.config.options import MICRO_BATCHES, of_role
from batchlab.recording.flat_options import flat
from batchlab.recording.masking import masked
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.points import Point

AXIS = of_role(Role.AXIS)


class Limits:
    """The smallest micro-batch that ran out of memory, for each combination of the options that affect memory.

    Options that affect only the weights do not count: if 128 did not fit, neither 128 nor 256 is tried at another
    learning rate or with another seed.
    """

    def __init__(self, *, skip_larger: bool = True) -> None:
        self._skip_larger = skip_larger
        self._smallest: dict[str, Point] = {}

    def learn(self, point: Point, record: RunRecord) -> None:
        """Records a point that ran out of memory without sharing the machine."""
        if record.status is RunStatus.OOM and record.attempts > 0 and not record.shared_machine:
            smallest = self._smallest.setdefault(_kind(point), point)
            if _size(point) < _size(smallest):
                self._smallest[_kind(point)] = point

    def too_large(self, point: Point) -> RunRecord | None:
        """The record of a point that is not run because one of the same or a smaller size did not fit; else None."""
        if not self._smallest or not self._skip_larger:
            return None
        limit = self._smallest.get(_kind(point))
        if limit is None or _size(point) < _size(limit) or point.folder == limit.folder:
            return None
        return point.new_record(RunStatus.OOM, f"not run: {_named(limit, point)} did not fit", attempts=0)


def _kind(point: Point) -> str:
    return key(point.config, MEMORY, without=MICRO_BATCHES)


def _size(point: Point) -> tuple[int, bool]:
    """Sorts points of one kind by memory: from the second micro-batch of a step on, gradients are held too."""
    return point.config.largest_micro_batch, len(point.config.micro_batch_sizes) > 1


def _named(limit: Point, point: Point) -> str:
    """The point that did not fit, by its batch size and all options that differ from `point`."""
    given, other = (flat(requested(masked(to_dict(each.config)), IDENTITY)) for each in (limit, point))
    return " ".join(f"{name}={value}" for name, value in given.items() if name in AXIS or value != other.get(name))
