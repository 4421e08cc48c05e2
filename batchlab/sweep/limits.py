"""What did not fit once is not tried in a larger size."""

from batchlab.config import key
from batchlab.config.option_row import MEMORY
from batchlab.config.options import MICRO_BATCHES
from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.points import Point


class Limits:
    """The smallest micro-batch that ran out of memory, for each configuration that moves the memory of training.

    What moves the weights alone does not: where 128 did not fit, 256 does not fit at another learning rate either.
    """

    def __init__(self, *, skip_larger: bool = True) -> None:
        self._skip_larger = skip_larger
        self._smallest: dict[str, int] = {}

    def learn(self, point: Point, record: RunRecord) -> None:
        """Takes note of a point that ran, and ran out of memory that it had to itself."""
        if record.status is RunStatus.OOM and record.attempts > 0 and not record.shared_machine:
            kind, size = _kind(point), point.config.largest_micro_batch
            self._smallest[kind] = min(size, self._smallest.get(kind, size))

    def too_large(self, point: Point) -> RunRecord | None:
        """The record of a point that need not be run: something smaller than it did not fit. Else None."""
        if not self._smallest or not self._skip_larger:
            return None
        limit = self._smallest.get(_kind(point))
        if limit is None or point.config.largest_micro_batch <= limit:
            return None
        return point.new_record(RunStatus.OOM, f"not run: {limit} did not fit", attempts=0)


def _kind(point: Point) -> str:
    return key(point.config, MEMORY, without=MICRO_BATCHES)
