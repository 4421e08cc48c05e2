"""The signals that end a sweep: once after the running step, the same one twice at once."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

# Ctrl-C; a polite kill, and pre-emption by Slurm; what batch systems send ahead of the end; a dropped connection.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


@dataclass
class Interruption:
    """Which signals have come so far, in their order."""

    seen: list[int] = field(default_factory=list)
    earlier: dict[int, Handler] = field(default_factory=dict)  # whom the signals would have reached without us

    @property
    def count(self) -> int:
        """How many have come."""
        return len(self.seen)

    @property
    def number(self) -> int | None:
        """The first one."""
        return self.seen[0] if self.seen else None

    @property
    def at_once(self) -> bool:
        """Whether the end may not wait for the step.

        Two different signals are no second request: Slurm warns of a time limit with one and ends it with another.
        """
        return len(set(self.seen)) < len(self.seen)

    @property
    def exit_code(self) -> int | None:
        """130 for Ctrl-C, 143 for every other signal; None where nothing came."""
        if self.number is None:
            return None
        return 130 if self.number == signal.SIGINT else 143

    def hand_over(self) -> None:
        """Calls whoever listened to the signals before us, once for each signal that came.

        A launcher's handler requeues its job, and then raises SystemExit. What it must find is already on disk, so
        this is called when the worker has ended.
        """
        for number in dict.fromkeys(self.seen):
            handler = self.earlier.pop(number, None)
            if handler is not None:
                handler(number, None)


def nothing(interruption: Interruption) -> None:
    """What is done about a signal besides taking note of it, unless a caller says otherwise."""


@contextlib.contextmanager
def watching_signals(then: Callable[[Interruption], None] = nothing) -> Iterator[Interruption]:
    """Takes note of the signals instead of dying of them, and calls `then` after each.

    A signal that was ignored before, as SIGHUP under nohup, stays ignored. Outside the main thread, where Python
    takes none, nothing is seen.
    """
    interruption = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        interruption.seen.append(number)
        then(interruption)

    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    note.is_ours = True  # type: ignore[attr-defined]
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    interruption.earlier = listening()
    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def listening() -> dict[int, Handler]:
    """Who in this process listens to the signals, besides Python and batchlab itself: in a job of submitit's, submitit.

    A watch of ours around another is told by the answer of what it watches over, and not of the signal once more.
    """
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {
        number: handler
        for number, handler in found.items()
        if callable(handler) and handler is not signal.default_int_handler and not hasattr(handler, "is_ours")
    }
