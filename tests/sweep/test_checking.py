"""What `batchlab check` says while it waits for the user's code."""

import pytest

from batchlab.sweep.checking import Screen
from batchlab.worker.check.findings import Doing, ok


def test_what_takes_long_is_named_once_and_what_ended_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    with Screen(late_seconds=0.0) as screen:
        screen.show(Doing("building the model (my.Net[32])"))
        screen._late.join()

    with Screen(late_seconds=1e6) as screen:
        screen.show(Doing("building the data (my.load)"))
        waiting = screen._late
        screen.show(Doing("passing a few examples"))
        screen.show(ok("data", "4 examples"))
    waiting.join()

    printed = capfd.readouterr()
    assert printed.out == "ok      data        4 examples\n"
    assert printed.err == (
        "still building the model (my.Net[32]), after 0 s: this has no time limit, and Ctrl-C ends the check\n"
    )
