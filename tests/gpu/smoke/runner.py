"""Runs checks, each in a forked process with a time limit, so that a crash does not affect the others.
The parent must not have used CUDA: a driver that was started before a fork does not work in the child.
"""

import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any

LIMIT_SECONDS = 10.0
SIMULATED = "BATCHLAB_TESTS_CUDA" in os.environ  # set by tests/faked_cuda.py: there is no real GPU behind device=cuda
OUTPUT_KEPT = 4000  # characters of what a check printed

PR_SET_PDEATHSIG = 1

Body = Callable[[str], Mapping[str, Any] | None]  # from the `device` option to what it measured


def is_real_gpu(device: str) -> bool:
    """Whether kernels run on a GPU: neither on the CPU nor on a simulated device."""
    return device.startswith("cuda") and not SIMULATED


class LeftOutError(Exception):
    """This check is not possible here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One question that is answered by running. `body` raises an error if the result is not the expected one."""

    name: str
    asks: str
    body: Body
    needs: str = ""  # "cuda": may be simulated; "gpu": only a real one
    alone: bool = False  # it measures time or fills memory: no other check runs at the same time
    limit: float = LIMIT_SECONDS


CHECKS: list[Check] = []  # in the order in which they were defined


def check(asks: str, **settings: Any) -> Callable[[Body], Body]:
    """Adds a function to `CHECKS`, by its name; `settings` are fields of `Check`."""

    def added(body: Body) -> Body:
        CHECKS.append(Check(body.__name__, asks, body, **settings))
        return body

    return added


@dataclass
class _Running:
    check: Check
    process: Any
    began: float
    output: Any


def run_checks(
    checks: Iterable[Check], device: str, *, at_once: int = 1, patience: float = 1.0
) -> Iterator[dict[str, Any]]:
    """The result of each check, as it ends: name, status, seconds, error, traceback, figures, output.

    Limits are multiplied by `patience`. `status` is `passed`, `failed`, `left out`, `out of time`, or `died` if the
    process ended without a result.
    """
    waiting, running = [replace(c, limit=c.limit * patience) for c in checks], dict[Any, _Running]()
    while waiting or running:
        while waiting and _may_start(waiting[0], running, at_once):
            ours, started = _start(waiting.pop(0), device)
            running[ours] = started
        first_end = min(r.began + r.check.limit for r in running.values())
        ready = wait(list(running), timeout=max(0.0, first_end - time.monotonic()))
        late = [
            ours for ours, r in running.items() if ours not in ready and time.monotonic() >= r.began + r.check.limit
        ]
        for ours in ready:
            yield _ended(ours, running.pop(ours), late=False)
        for ours in late:
            yield _ended(ours, running.pop(ours), late=True)


def _may_start(candidate: Check, running: Mapping[Any, _Running], at_once: int) -> bool:
    if not running:
        return True
    return len(running) < at_once and not candidate.alone and not any(r.check.alone for r in running.values())


def _start(candidate: Check, device: str) -> tuple[Any, _Running]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    output = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the check has ended
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_child, args=(candidate, device, theirs, output.fileno()))
    process.start()
    theirs.close()
    return ours, _Running(candidate, process, time.monotonic(), output)


def _child(candidate: Check, device: str, pipe: Any, output: int) -> None:
    os.setsid()  # it is ended together with its children,
    with contextlib.suppress(AttributeError, OSError):  # and when its parent ends
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable(file=2, all_threads=False)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - to the end
    pipe.send(_outcome(candidate, device))  # the parent then ends this process: nothing is flushed later


def _outcome(candidate: Check, device: str) -> dict[str, Any]:
    if candidate.needs and not device.startswith("cuda"):
        return {"status": "left out", "error": f"device={device}: it needs CUDA"}
    if candidate.needs == "gpu" and SIMULATED:
        return {"status": "left out", "error": "the device is simulated: it needs a real one"}
    try:
        return {"status": "passed", "figures": dict(candidate.body(device) or {})}
    except LeftOutError as reason:
        return {"status": "left out", "error": str(reason)}
    except BaseException as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {first}", "traceback": traceback.format_exc()}
        return outcome | {"figures": dict(getattr(error, "figures", {}))}


def _ended(ours: Any, ran: _Running, *, late: bool) -> dict[str, Any]:
    seconds = time.monotonic() - ran.began
    try:
        outcome = {"status": "out of time", "error": f"not done after {seconds:.0f} s"} if late else ours.recv()
    except EOFError:
        ran.process.join()
        outcome = {"status": "died", "error": f"its process ended with {ran.process.exitcode} and without a word"}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(ran.process.pid, signal.SIGKILL)  # its result has arrived; the rest may hang in the driver
    ran.process.join(5)
    ran.output.seek(0)
    printed = ran.output.read().decode(errors="replace")[-OUTPUT_KEPT:]
    ran.output.close()
    result = {"check": ran.check.name, "asks": ran.check.asks, "seconds": round(seconds, 2), **outcome}
    return result | ({"output": printed} if printed and outcome["status"] not in ("passed", "left out") else {})


def wants(condition: bool, text: str, /, **figures: Any) -> None:
    """AssertionError with `text` unless `condition`; the figures are attached to it."""
    if not condition:
        shown = ", ".join(f"{name}={value}" for name, value in figures.items())
        error = AssertionError(f"{text}: {shown}" if shown else text)
        error.figures = figures  # type: ignore[attr-defined]
        raise error
