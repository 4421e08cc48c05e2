"""The signals that stop a sweep: after the running step, or immediately if the same signal comes twice."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

# Ctrl-C; kill, and pre-emption by Slurm; the warnings of batch systems before a time limit; a lost connection.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


@dataclass
class Interruption:
    """The signals received so far, in order."""

    seen: list[int] = field(default_factory=list)
    earlier: dict[int, Handler] = field(default_factory=dict)  # the previous handlers

    @property
    def count(self) -> int:
        """The number of signals received."""
        return len(self.seen)

    @property
    def number(self) -> int | None:
        """The first one."""
        return self.seen[0] if self.seen else None

    @property
    def at_once(self) -> bool:
        """Whether to stop immediately and not after the step.

        Two different signals do not count: Slurm warns of a time limit with one signal and ends the job with another.
        """
        return len(set(self.seen)) < len(self.seen)

    @property
    def exit_code(self) -> int | None:
        """130 for Ctrl-C, 143 for other signals; None without a signal."""
        if self.number is None:
            return None
        return 130 if self.number == signal.SIGINT else 143

    def hand_over(self) -> None:
        """Calls the previous handlers, once for each signal received.

        A launcher's handler requeues its job and then raises SystemExit. It needs the checkpoint on the disk, so call
        this when the worker has ended.
        """
        for number in dict.fromkeys(self.seen):
            handler = self.earlier.pop(number, None)
            if handler is not None:
                handler(number, None)


def nothing(interruption: Interruption) -> None:
    """The default reaction to a signal: it is only recorded."""


@contextlib.contextmanager
def watching_signals(then: Callable[[Interruption], None] = nothing) -> Iterator[Interruption]:
    """Records the signals, which then do not end this process, and calls `then` after each.

    A signal that was ignored before, such as SIGHUP under nohup, stays ignored. Outside the main thread, where Python
    cannot handle signals, none is recorded.
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
    interruption.earlier = other_handlers()
    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def other_handlers() -> dict[int, Handler]:
    """The signal handlers that neither Python nor batchlab has set: in a job of submitit, those of submitit.

    Handlers of an outer `watching_signals` are left out: its block learns of the signal from the exit code.
    """
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {
        number: handler
        for number, handler in found.items()
        if callable(handler) and handler is not signal.default_int_handler and not hasattr(handler, "is_ours")
    }
