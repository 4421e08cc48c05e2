"""`batchlab check`: the trials of one point, each part in a separate process."""

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from rich.text import Text

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.sweep.checks import SEE_CHECK, check_device, check_grid, or_on_cpu, replies_of, reply_of
from batchlab.sweep.points import Point, gpu_of
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.summary.progress import UnreadConsole
from batchlab.worker.check.findings import (
    SECONDS,
    Checkup,
    Doing,
    Finding,
    Rest,
    better,
    collected,
    is_wrong,
    lines,
    ok,
    summary,
    wrong,
)
from batchlab.worker.examining import compare_gradients, run_trials
from batchlab.worker.messages import Failed

EXAMPLES, MICRO_BATCHES = 8, 2  # of the accumulated batch
PASSES = 30  # forward and backward, of as many examples as the trials pass, to compare the gradients; and to try a run


def check(point: Point) -> int:
    """Prints the findings as each is known; returns 0 if nothing is wrong, otherwise 1."""
    checkup = or_on_cpu([point], lambda points: _checkup(points[0]))[0]
    after = "batchlab sweep batch_size=8,64"
    if point.overrides:  # not written out, since Hydra may have been given further options
        after = "`batchlab sweep` with the same arguments and batch_size=8,64"
    sys.stdout.write(f"\n{summary(checkup, after)}\n")
    return 1 if is_wrong(checkup.findings) else 0


def _checkup(point: Point) -> Checkup:
    with WarmServer(gpu_of([point])) as server:
        server.warm_up()
        with Screen() as screen:
            check_device(point, server)
            return collected(map(screen.show, _findings(point, server)))


class Screen:
    """Prints findings, and what is done meanwhile: as a status on a terminal, and in a line when it takes long."""

    def __init__(self, late_seconds: float = 20.0) -> None:
        self._late_seconds = late_seconds
        self._console = UnreadConsole(stderr=True)
        self._status = self._console.status("starting...")
        self._late = threading.Timer(0.0, lambda: None)

    def __enter__(self) -> "Screen":
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._late.cancel()
        self._status.stop()

    def show(self, found: Finding | Rest | Doing) -> Finding | Rest | Doing:
        if isinstance(found, Doing):
            self._status.update(Text(f"{found.what}..."))
            self._late.cancel()
            self._late = threading.Timer(self._late_seconds, self._say_late, [found.what])
            self._late.daemon = True
            self._late.start()
        if isinstance(found, Finding):
            self._status.stop()  # or it would overwrite the line
            sys.stdout.write("".join(f"{line}\n" for line in lines(found)))
            sys.stdout.flush()
            self._status.start()
        return found

    def _say_late(self, what: str) -> None:
        still = f"still {what}, after {self._late_seconds:.0f} s: this has no time limit, and Ctrl-C ends the check"
        self._console.print(still, markup=False, highlight=False, soft_wrap=True)


def _findings(point: Point, server: WarmServer) -> Iterator[Finding | Rest | Doing]:
    start, last, rest = time.monotonic(), ("accumulate", "sweep"), Rest()
    failed, refused, doing = False, None, ["starting the check"]
    try:
        for found in replies_of(server, run_trials, point.config, doing=lambda: doing[-1]):
            if isinstance(found, Failed):
                refused = found.reason
                break
            if isinstance(found, Doing):
                doing.append(found.what)
            elif isinstance(found, Rest):
                rest = found
            else:
                failed |= is_wrong([found])
            yield found
    except BadRequest as error:  # the process died
        yield wrong("process", str(error), "run the model outside batchlab, to see where it fails")
        return
    if refused is not None:
        raise BadRequest(refused)
    if failed:
        yield Rest(untried=last)
    elif time.monotonic() - start + PASSES * rest.pass_seconds > SECONDS:
        yield Rest(too_slow=last)
    else:
        if not rest.is_whole_batch:  # micro-batches are another objective, which the trials say
            yield Doing("comparing the gradients of the whole batch and of micro-batches")
            yield _accumulated(point.config, server)
        yield Doing("trying the start of a run")
        yield _would_start(point, server)


def _accumulated(config: RunConfig, server: WarmServer) -> Finding:
    """Whether micro-batches give the same update as the whole batch; `batchlab verify` examines this further."""
    name, more = "accumulate", f"`batchlab verify` with these arguments and accumulate={MICRO_BATCHES} explains it"
    small = replace(config, batch_size=EXAMPLES, accumulate=MICRO_BATCHES, micro_batch_size=None, warmup=0.0)
    try:
        found = reply_of(server, compare_gradients, small, doing="comparing the gradients")
    except BadRequest as error:
        found = Failed(str(error))
    if isinstance(found, Failed):
        return better(name, f"the gradients cannot be compared: {found.reason}", more)
    causes = ", ".join(dict.fromkeys(cause.what for cause in found.causes))
    if found.same and found.causes:  # the difference itself would be that of other random numbers
        return ok(
            name,
            f"{MICRO_BATCHES} micro-batches give the gradient of the whole batch, but for the random "
            f"numbers of {causes}",
        )
    difference = f"relative difference {found.deciding.worst:.1g} in {found.deciding.dtype}"
    if found.same:
        return ok(name, f"{MICRO_BATCHES} micro-batches give the gradient of the whole batch, {difference}")
    return better(
        name,
        f"{MICRO_BATCHES} micro-batches give another gradient than the whole batch "
        f"({causes or 'no module by itself'}; {difference})",
        more,
    )


def _would_start(point: Point, server: WarmServer) -> Finding:
    """The checks of a sweep before its first point, which cover more than the trials."""
    try:
        check_grid([point], server)
    except BadRequest as error:
        return wrong(
            "sweep", str(error).removesuffix(SEE_CHECK), "fix this first: a run with these options would not start"
        )
    return ok("sweep", "a run with these options would start")
