"""The meter excludes measuring from training time and memory."""

import pytest

from batchlab.training.clock.meter import Meter


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Marks:
    """Memory whose level the test sets; the mark is the highest level since the last reset."""

    def __init__(self):
        self.level = self.mark = 0

    def to(self, level):
        self.level, self.mark = level, max(self.mark, level)

    def read(self):
        return {"bytes": self.mark}

    def reset(self):
        self.mark = self.level

    def pause(self):
        """Nothing to do."""

    def resume(self, marks):
        self.mark = self.level

    def keep_earlier_marks(self):
        self.frozen = True


def test_the_clock_is_paused_while_an_instrument_works():
    clock = Clock()
    meter = Meter(peaks=Marks(), clock=clock)
    meter.start()
    clock.now += 2.0
    with meter.paused():
        clock.now += 50.0
        assert meter.seconds == 2.0
    clock.now += 1.0
    assert meter.seconds == 3.0
    assert meter.measuring_seconds == 50.0


def test_queued_work_is_charged_to_the_code_that_queued_it():
    clock = Clock()
    pending = [0.0]

    def drain():
        clock.now += pending[0]
        pending[0] = 0.0

    meter = Meter(peaks=Marks(), clock=clock, drain=drain)
    meter.start()
    pending[0] = 3.0  # training queued three seconds of work, and the host continued at once
    with meter.paused():
        assert meter.seconds == 3.0
        pending[0] = 7.0  # and so did an instrument
    assert meter.seconds == 3.0
    assert meter.measuring_seconds == 7.0


def test_an_instruments_peak_does_not_count_as_trainings():
    marks = Marks()
    meter = Meter(peaks=marks)
    marks.to(10)
    meter.start()
    marks.to(30)
    marks.to(10)
    with meter.paused():
        marks.to(500)
        marks.to(10)
    marks.to(40)
    marks.to(10)
    with meter.paused():
        pass
    assert meter.peak_bytes == {"bytes": 40}


def test_the_clock_resumes_when_an_instrument_fails():
    clock = Clock()
    meter = Meter(peaks=Marks(), clock=clock)
    meter.start()

    def measure():
        with meter.paused():
            clock.now += 5.0
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure()
    clock.now += 1.0
    assert meter.seconds == 1.0


def test_settling_comes_after_each_measurement_as_long_as_it_is_quick():
    clock, settled = Clock(), []
    takes = iter([0.001, 0.004, 0.006, 0.001])

    def settle():
        settled.append(clock.now)
        clock.now += next(takes)

    meter = Meter(peaks=Marks(), clock=clock)
    meter.start(settle=settle)
    for _ in range(5):
        with meter.paused():
            clock.now += 10.0
    assert len(settled) == 3  # the third took longer than 5 ms
    assert meter.seconds == 0.0


def test_a_resumed_meter_has_its_seconds_and_marks():
    clock, marks = Clock(), Marks()
    before = Meter(peaks=marks, clock=clock)
    before.start()
    clock.now += 2.0
    marks.to(70)
    with before.paused():
        clock.now += 5.0
    kept = before.state_dict()

    after = Meter(peaks=Marks(), clock=clock)
    after.load_state_dict(kept)
    after.start()
    clock.now += 1.0
    after.stop()
    assert (after.seconds, after.measuring_seconds, after.peak_bytes) == (3.0, 5.0, {"bytes": 70})
