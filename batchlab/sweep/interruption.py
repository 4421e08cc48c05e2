"""Ctrl-C, SIGTERM and SIGUSR1 on the parent of a sweep: once ends it after the running step, twice at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass
class Interruption:
    """Which signals have come so far."""

    count: int = 0
    number: int | None = None  # the first one

    @property
    def exit_code(self) -> int | None:
        """130 for Ctrl-C, 143 for SIGTERM and pre-emption; None where nothing came."""
        if self.number is None:
            return None
        return 130 if self.number == signal.SIGINT else 143


@contextlib.contextmanager
def watching_signals() -> Iterator[Interruption]:
    """Counts the signals instead of dying of them; outside the main thread, where Python takes none, counts nothing."""
    seen = Interruption()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        seen.count += 1
        seen.number = seen.number or number

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
