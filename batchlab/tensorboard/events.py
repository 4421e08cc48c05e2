"""One run's curves in TensorBoard: a view of its journal, whose failure does not affect the run."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from batchlab.recording import disk
from batchlab.recording.flat_options import flat_options
from batchlab.records import Measurement, RunRecord, RunStatus
from batchlab.records.declared import Quantities
from batchlab.records.quantity import Quantity
from batchlab.tensorboard.event_file import EVENTS, EventFile, tag_of
from batchlab.tensorboard.hparams import session_end, session_start
from batchlab.tensorboard.layout import BY_STEP, HIGH, LOW

MOST_POINTS = 2000  # of a curve; the journal has all points


class RunEvents:
    """Writes a run's measurements and options to a new event file in its folder, replacing older ones.

    The axis is examples seen; TensorBoard's "relative" is training seconds. The ends of an interval are curves too,
    `<name>_low` and `<name>_high`. No method raises: if the disk is full, one line on stderr says so and nothing
    further is written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        group: str,
        hparams: Mapping[str, object],
        started: float,
        budget: int,
        declared: Iterable[Quantity] = (),
    ) -> None:
        """`group` is shared by runs that differ only in the seed, `started` is in seconds since 1970, `budget` is the
        number of examples that the run will see: the points of a curve are at least a 2,000th of it apart.
        `declared` holds the quantities that the run's record declares."""
        self._started = started
        self._quantities = Quantities(declared)
        self._gap = budget / (MOST_POINTS - 2)  # in examples; the first and the last point are extra
        self._written: dict[str, Measurement] = {}
        self._waiting: dict[str, Measurement] = {}
        self._file: EventFile | None = None
        self._folder = folder
        with self._disk():
            # TensorBoard would draw two files as one curve, and an old file may end in a torn event.
            remove_events(folder)
            self._file = EventFile(folder, started=started)
            self._file.summary(session_start(hparams, run_id=run_id, group=group, started=started))

    @classmethod
    def of(cls, record: RunRecord, folder: Path, *, group: str, budget: int) -> "RunEvents":
        """The events of the run with this record, which starts now."""
        return cls(
            folder,
            run_id=record.run_id,
            group=group,
            hparams=flat_options(record),
            started=time.time(),
            budget=budget,
            declared=record.quantities,
        )

    def add(self, measurement: Measurement) -> None:
        """Adds a point, unless it is too close to the previous one; the last point of each curve is always written."""
        before = self._written.get(measurement.name)
        if before is not None and measurement.examples - before.examples < self._gap:
            self._waiting[measurement.name] = measurement
            return
        self._draw(measurement)

    def close(self, status: RunStatus) -> None:
        """Writes the last points and how the run ended; calling it twice is harmless."""
        for measurement in list(self._waiting.values()):
            self._draw(measurement)
        if self._file is None:
            return
        with self._disk():
            self._file.summary(session_end(status, ended=time.time()))
            self._file.close()
        self._file = None

    def _draw(self, measurement: Measurement) -> None:
        self._written[measurement.name] = measurement
        self._waiting.pop(measurement.name, None)
        name, wall_time = measurement.name, self._started + measurement.train_seconds
        points = [(name, measurement.value, measurement.examples)]
        points += [
            (name + suffix, end, measurement.examples)
            for suffix, end in ((LOW, measurement.low), (HIGH, measurement.high))
            if end is not None
        ]
        chart = self._quantities[name].chart
        if chart is not None and chart.over_steps:
            points.append((name + BY_STEP, measurement.value, measurement.step))
        for tag, value, step in points:
            if self._file is not None:
                with self._disk():
                    self._file.scalar(tag_of(tag), value, step=step, wall_time=wall_time)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Reports a disk error of the block once; nothing is written after it."""
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):  # the worker's log may be on the same disk
                sys.stderr.write(f"TensorBoard events of {self._folder.name} end here: {error.strerror or error}\n")
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


def remove_events(folder: Path) -> None:
    """Removes the event files of a run that starts again: TensorBoard would draw both attempts as one curve."""
    for path in folder.glob(EVENTS):
        disk.remove(path)
