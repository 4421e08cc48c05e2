"""kill -9 at random moments of real sweeps, each begun again until it is done."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torture.comparison import came_to, differences, left_aside
from torture.sweeps import GRID, STARTED, Sweep, answers, finished, run_folders, sweep

MOST_SECONDS = 2.0  # between the first point's start and the kill


def undisturbed(folder: Path, *grid: str) -> dict[str, Any]:
    """What each point comes to when nobody disturbs it."""
    folder.mkdir()
    code, output = finished(folder, *(grid or GRID))
    assert code == 0, output
    return {run.name: came_to(run) for run in run_folders(folder / "runs" / "study")}


def killed_again_and_again(
    folder: Path, kills: int, done: dict[str, bytes], draw: random.Random, *grid: str
) -> Iterator[str | None]:
    """One sweep, begun again after each of `kills` deaths: for each what is wrong. `done` are the answers so far."""
    folder.mkdir(exist_ok=True)
    for number in range(kills):
        with sweep(folder, *(grid or GRID)) as running:
            if not running.hear(STARTED):
                yield f"kill {number}: it was at its end before ({running.output})"
                return
            time.sleep(draw.uniform(0, MOST_SECONDS))
            wrong = _kill_worker(running) if draw.random() < 0.2 else _kill(running)
            yield wrong or _kept(running.study, done)


def comes_to(folder: Path, expected: dict[str, Any], done: dict[str, bytes], *grid: str) -> str | None:
    """The sweep to its end: what differs from one that nobody disturbed, or touched an answer that was there."""
    code, output = finished(folder, *(grid or GRID))
    wrong = [] if code == 0 else [f"exit code {code}: {output}"]
    wrong += filter(None, [_kept(folder / "runs" / "study", done)])
    wrong += different(folder / "runs" / "study", expected)
    return "; ".join(wrong[:4]) or None


def different(study: Path, expected: dict[str, Any]) -> list[str]:
    """Where the points of a finished sweep are not what they are without a disturbance."""
    wrong = differences({run.name: came_to(run) for run in run_folders(study)}, expected)
    return wrong + [f"left: {name}" for name in left_aside(study)]


def asked_to_stop(folder: Path, expected: dict[str, Any], draw: random.Random, *grid: str) -> Iterator[str | None]:
    """Ctrl-C, Ctrl-C twice, SIGTERM and SIGUSR1: the exit code, nobody left, and the sweep can be continued."""
    folder.mkdir()
    for name, numbers, code in (
        ("Ctrl-C", [signal.SIGINT], 130),
        ("Ctrl-C twice", [signal.SIGINT, signal.SIGINT], 130),
        ("SIGTERM", [signal.SIGTERM], 143),
        ("SIGUSR1", [signal.SIGUSR1], 143),
    ):
        with sweep(folder, *(grid or GRID)) as running:
            if not running.hear(STARTED):
                yield f"{name}: it was at its end before ({running.output})"
                return
            time.sleep(draw.uniform(0.2, 1.0))
            for signal_number in numbers:
                # As a terminal does it: the whole foreground group hears Ctrl-C.
                send = os.killpg if signal_number == signal.SIGINT else os.kill
                send(running.process.pid, signal_number)
                time.sleep(0.05)
            began = time.monotonic()
            found = running.end(seconds=60)
            took = time.monotonic() - began
            if found != code or "Traceback" in running.output:
                yield f"{name}: exit code {found}, not {code}: {running.output}"
            elif len(numbers) == 2 and took > 5:
                yield f"{name}: took {took:.1f} s"
            else:
                left = running.orphans()
                yield f"{name}: {left} are left" if left else None
    yield comes_to(folder, expected, {}, *grid)


def leaves_nobody(folder: Path) -> str | None:
    """A sweep is killed while a point trains that would take minutes: the point's process ends too."""
    folder.mkdir()
    with sweep(folder, "batch_size=16", "model.seconds=2") as running:
        running.hear(STARTED)
        until = time.monotonic() + 60
        while not (workers := running.workers()) and time.monotonic() < until:
            time.sleep(0.02)
        wrong = _kill(running)
        return wrong if workers else f"no worker was seen: {running.output}"


def _kill(running: Sweep) -> str | None:
    running.kill()
    running.end()
    left = running.orphans()
    return f"{len(left)} processes outlived the sweep" if left else None


def _kill_worker(running: Sweep) -> str | None:
    """The kernel's OOM killer chose the worker; then the sweep itself is killed too, a moment later."""
    workers = running.workers()
    if workers:
        os.kill(workers[0], signal.SIGKILL)
        running.hear(STARTED, seconds=30) or running.end()
    return _kill(running)


def _kept(study: Path, done: dict[str, bytes]) -> str | None:
    """Whether the answers that were there before are there still, to the byte; takes note of the new ones."""
    now = answers(study)
    changed = [name for name, content in done.items() if now.get(name) != content]
    done.update(now)
    return f"{changed} had their answer and were touched again" if changed else None
