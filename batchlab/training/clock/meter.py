"""Measures training seconds and peak memory, excluding measurements by instruments."""

import contextlib
import time
from collections.abc import Callable, Iterator

from batchlab.records import StateDict
from batchlab.training.devices.device import Peaks
from batchlab.training.first_error import finally_do

SETTLE_SECONDS = 0.005


def nothing() -> None:
    """Does nothing."""


class Meter:
    """A stopwatch and memory high-water marks that are paused while an instrument works."""

    def __init__(
        self,
        *,
        peaks: Peaks,
        drain: Callable[[], object] = nothing,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.measuring_seconds = 0.0  # spent in `paused`
        self.pause_seconds = 0.0  # that a pause adds to the steps after it; subtracted from their time
        self._peaks = peaks
        self._drain = drain  # waits until the device has finished its queue
        self._settle: Callable[[], object] = nothing
        self.clock = clock
        self._seconds = 0.0
        self._since: float | None = None  # when the clock was last started
        self._highest: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """Seconds spent training so far."""
        return self._seconds + (0.0 if self._since is None else self.clock() - self._since)

    @property
    def peak_bytes(self) -> dict[str, int]:
        """The peak of each kind of memory while training, up to the last pause."""
        return dict(self._highest)

    def state_dict(self) -> StateDict:
        """What resuming needs: seconds and marks so far."""
        return {"seconds": self.seconds, "measuring_seconds": self.measuring_seconds, "highest": dict(self._highest)}

    def load_state_dict(self, state: StateDict) -> None:
        """The inverse of `state_dict`, before `start`."""
        self._seconds, self.measuring_seconds = state["seconds"], state["measuring_seconds"]
        self._highest = dict(state["highest"])
        if self._highest:
            self._peaks.keep_earlier_marks()

    def start(self, rehearsal: Callable[[], object] = nothing, settle: Callable[[], object] = nothing) -> None:
        """Starts the clock after a `rehearsal`, whose time is not counted; its memory is.

        `settle` restores the processor's caches after each measurement, as long as it is quick.
        """
        self._settle = settle
        self._drain()
        self._peaks.reset()
        rehearsal()
        self._drain()
        self._since = self.clock()

    def stop(self) -> None:
        """Stops the clock and reads the marks, once the device has finished."""
        self._drain()
        now = self.clock()  # before anything else: a step of a small model takes 150 us
        if self._since is not None:
            self._seconds += max(0.0, now - self._since - self.pause_seconds)
        self._since = None
        marks = self._peaks.read()
        self._highest |= {name: max(value, self._highest.get(name, 0)) for name, value in marks.items()}

    @contextlib.contextmanager
    def paused(self, *, settling: bool = True) -> Iterator[None]:
        """Pauses the clock while measuring; drains the device at both ends, so that work counts on the right side.

        `settling`: whether a training step follows, so that the caches have to be restored.
        """
        running = self._since is not None
        if running:
            self.stop()
            self._peaks.pause()
        began = self.clock()

        def restart() -> None:
            self._drain()
            if running and any(value > self._highest[name] for name, value in self._peaks.read().items()):
                self._peaks.resume(self._highest)
            if running and settling:
                self._settle_down()
            self.measuring_seconds += self.clock() - began
            if running:
                self._since = self.clock()

        with finally_do(restart):
            yield

    def _settle_down(self) -> None:
        began = self.clock()
        self._settle()
        if self.clock() - began > SETTLE_SECONDS:  # steps that long are not affected
            self._settle = nothing
