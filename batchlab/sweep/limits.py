"""What did not fit once is not tried in a larger size."""

import json
from collections.abc import Mapping
from typing import Any

from batchlab.records import RunRecord, RunStatus
from batchlab.sweep.identity import identity
from batchlab.sweep.points import Point

# What does not move the memory of a step, or is what the limit is about.
LEFT_OUT = ("batch_size", "micro_batches", "seed")


class Limits:
    """The smallest micro-batch that ran out of memory, for each configuration that differs in more than its size."""

    def __init__(self) -> None:
        self._smallest: dict[str, int] = {}

    def learn(self, point: Point, record: RunRecord) -> None:
        """Takes note of a point that ran, and ran out of memory that it had to itself."""
        if record.status is RunStatus.OOM and record.attempts > 0 and not record.shared_machine:
            key, size = _key(point), max(point.config.micro_batch_sizes)
            self._smallest[key] = min(size, self._smallest.get(key, size))

    def too_large(self, point: Point) -> RunRecord | None:
        """The record of a point that need not be run: something smaller than it did not fit. Else None."""
        if not self._smallest or not point.config.skip_larger:
            return None
        limit = self._smallest.get(_key(point))
        if limit is None or max(point.config.micro_batch_sizes) <= limit:
            return None
        return point.new_record(RunStatus.OOM, f"not run: {limit} did not fit", attempts=0)


def _key(point: Point) -> str:
    values: Mapping[str, Any] = identity(point.config)
    return json.dumps({k: v for k, v in values.items() if k not in LEFT_OUT}, sort_keys=True, default=str)
