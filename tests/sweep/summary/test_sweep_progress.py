"""Progress: seldom lines in a log, bars in a terminal; the clock is a fake."""

import io

import pytest
from invented.records import record
from rich.console import Console

from batchlab.records import RunStatus
from batchlab.sweep.summary.progress import LiveProgress, PlainProgress, duration, progress


class FakeClock:
    """Its time is constant until a test sets it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def log() -> Console:
    return Console(file=io.StringIO(), width=40)


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def seen(shown: PlainProgress) -> list[str]:
    """The bars as they are now, line by line."""
    console = terminal(shown.console.width)
    console.print(shown)
    return [line.rstrip() for line in text(console).splitlines()]


def test_a_log_has_a_line_for_every_start_and_end() -> None:
    clock, console = FakeClock(), log()

    with progress(total=3, skipped=1, console=console, clock=clock) as p:
        p.start("b8", "batch_size=8", 28_740)
        clock.seconds += 6.1
        p.finish("b8", RunStatus.COMPLETED, record(8))
        p.start("b32", "batch_size=32\x1b[31m", 0)
        clock.seconds += 2
        p.finish("b32", RunStatus.OOM, record(32, status=RunStatus.OOM, reason="wanted\n20 GiB"))
        p.finish("b64", RunStatus.KILLED, None)
        p.say("two\nlines\x07")

    assert text(console).splitlines() == [
        "1 of the 3 points is finished and is not run again",
        "[2/3] batch_size=8: started",
        "[2/3] batch_size=8: completed in 6.1 s, val loss 0.1530, 8,000 examples/s",
        "[3/3] batch_size=32[31m: started",
        "[3/3] batch_size=32[31m: oom in 2.0 s: wanted 20 GiB",
        "b64: killed",
        "two lines",
    ]


def test_a_log_hears_of_a_long_point_every_ten_seconds() -> None:
    clock, console = FakeClock(), log()

    with progress(total=1, console=console, clock=clock) as p:
        p.start("b8", "batch_size=8", 0)
        p.expect("b8", 28_740)
        for second in range(1, 26):
            clock.seconds += 1
            p.update("b8", 100 * second, 2.5, 1000.0)

    # 100 examples a second, validations included, whatever the meter says of training alone
    assert text(console).splitlines()[1:] == [
        "[1/1] batch_size=8: 1,000 of 28,740 examples, 1,000 examples/s, loss 2.500, 4 min 37 s left",
        "[1/1] batch_size=8: 2,000 of 28,740 examples, 1,000 examples/s, loss 2.500, 4 min 27 s left",
    ]


def test_a_terminal_has_a_bar_for_the_points_and_one_for_the_point() -> None:
    clock, console = FakeClock(), terminal()

    with progress(total=4, skipped=1, console=console, clock=clock) as p:
        assert isinstance(p, LiveProgress)
        p.start("b8", "batch_size=8 " + "model.width=128 " * 9, 1000)
        assert seen(p)[1].endswith("starting")
        p.update("b8", 0, None, None)
        clock.seconds += 2
        p.update("b8", 500, 0.25, 300.0)
        title, examples, points = seen(p)
        clock.seconds += 1
        p.finish("b8", RunStatus.COMPLETED, record(8))

        [points_after] = seen(p)

    assert title.startswith("[2/4] batch_size=8 ")
    assert len(title) == 80
    assert "300 examples/s, loss 0.2500, 2.0 s left" in examples
    assert "1 of 4 in 2.0 s" in points
    assert "2 of 4 in 3.0 s" in points_after
    assert "[2/4] batch_size=8 model.width=128" in text(console)
    assert "completed in 3.0 s" in text(console)


def test_a_terminal_is_left_as_it_was_found() -> None:
    console = terminal()

    def interrupted() -> None:
        with progress(total=1, console=console) as p:
            p.start("b8", "batch_size=8", 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert text(console).count(hidden) == text(console).count(shown) == 1


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("CI", "true")])
def test_lines_where_the_environment_asks_for_them(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(progress(total=1, console=terminal()), LiveProgress)
    monkeypatch.setenv(name, value)
    assert not isinstance(progress(total=1, console=terminal()), LiveProgress)


def test_lines_where_there_is_no_terminal() -> None:
    assert not isinstance(progress(total=1, console=log()), LiveProgress)


def test_progress_is_reported_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(total=1) as p:
        p.say("hello")

    assert capsys.readouterr() == ("", "hello\n")


def test_news_without_a_point_harm_nothing() -> None:
    console = log()

    with progress(total=1, console=console) as p:
        p.expect("b8", 5)
        p.update("b8", 1, 2.0, 3.0)

    assert text(console) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (125.4, "2 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations_are_as_exact_as_a_person_wants(seconds: float, words: str) -> None:
    assert duration(seconds) == words
