"""The speed of training."""

from collections.abc import Iterator

from batchlab.instruments.instrument import Instrument
from batchlab.records import Measurement, StateDict
from batchlab.records import quantities as table
from batchlab.science.statistics.uncertainty import median_interval
from batchlab.training.clock.busy import busy_share_of
from batchlab.training.devices.out_of_memory import is_out_of_memory
from batchlab.training.passes.halving import give_back
from batchlab.training.state import RunState

WARM_UP = 0.1  # share of the windows left out of the median, at least one: kernels are selected, caches filled


class Throughput(Instrument):
    """`speed/examples_per_second` and `speed/seconds_per_step` of each window of `log_every` examples.

    At the end their medians over the windows after the warm-up, with the interval of the median. On a GPU also
    `speed/device_busy_share`: the share of the time of a micro-batch's forward and backward passes in which the device
    computes (`pauses.busy_share` describes how it is measured). Below 0.7 training is launch-bound: the host cannot
    launch kernels fast enough, and Python limits the speed.
    """

    quantities = table.THROUGHPUT

    def __init__(self, *, log_every: int, micro_batch_size: int = 1) -> None:
        self.every: int | None = log_every
        self.micro_batch_size = micro_batch_size
        self._mark = (0, 0, 0.0)  # examples, steps, seconds at the end of the last window
        self._windows: list[tuple[int, int, float]] = []

    def measure(self, state: RunState) -> Iterator[Measurement]:
        now = (state.examples, state.step, state.meter.seconds)
        examples, steps, seconds = (b - a for a, b in zip(self._mark, now, strict=True))
        self._mark = now
        if steps == 0 or seconds <= 0:
            return
        self._windows.append((int(examples), int(steps), seconds))
        yield state.measurement("speed/examples_per_second", examples / seconds)
        yield state.measurement("speed/seconds_per_step", seconds / steps)

    def conclude(self, state: RunState) -> Iterator[Measurement]:
        if not self._windows:
            return
        warm_up = min(max(1, round(WARM_UP * len(self._windows))), len(self._windows) - 1)
        windows = self._windows[warm_up:]
        for name, values in (
            ("speed/examples_per_second", [examples / seconds for examples, _, seconds in windows]),
            ("speed/seconds_per_step", [seconds / steps for _, steps, seconds in windows]),
        ):
            median = median_interval(values)
            yield state.measurement(name, median.value, low=median.low, high=median.high, n=median.n)
        busy = self._busy_share(state)
        if busy is not None:
            yield state.measurement("speed/device_busy_share", busy)

    def _busy_share(self, state: RunState) -> float | None:
        """None if its passes do not fit: they need more memory than training, and must not make a complete run fail."""
        try:
            return busy_share_of(state, self.micro_batch_size, state.meter.clock)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        give_back(state.device)  # after the except block, whose frames held the memory
        state.note("speed/device_busy_share is not measured: its passes do not fit in memory")
        return None

    def state_dict(self) -> StateDict:
        return {"mark": self._mark, "windows": self._windows}

    def load_state_dict(self, state: StateDict) -> None:
        examples, steps, seconds = state["mark"]
        self._mark = (examples, steps, seconds)
        self._windows = [tuple(window) for window in state["windows"]]
