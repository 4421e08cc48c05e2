"""`batchlab check`: the trials of one point, each part in a separate process."""

import sys
from dataclasses import replace

from batchlab.config import RunConfig
from batchlab.errors import BadRequest
from batchlab.sweep.checks import SEE_CHECK, check_device, check_grid, or_on_cpu, reply_of
from batchlab.sweep.points import Point, gpu_of
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.summary.progress import UnreadConsole
from batchlab.worker.check.findings import Checkup, Finding, better, is_wrong, lines, ok, wrong
from batchlab.worker.examining import compare_gradients, run_trials
from batchlab.worker.messages import Failed
from batchlab.worker.verify.findings import Findings

EXAMPLES, MICRO_BATCHES = 8, 2  # of the accumulated batch


def check(point: Point) -> int:
    """Prints the findings; returns 0 if nothing is wrong, otherwise 1."""
    checkup = or_on_cpu([point], lambda points: _checkup(points[0]))[0]
    after = "batchlab sweep batch_size=8,64"
    if point.overrides:  # not written out, since Hydra may have been given further options
        after = "`batchlab sweep` with the same arguments and batch_size=8,64"
    sys.stdout.write("".join(f"{line}\n" for line in lines(checkup, after)))
    return 1 if is_wrong(checkup.findings) else 0


def _checkup(point: Point) -> Checkup:
    with WarmServer(gpu_of([point])) as server:
        server.warm_up()
        with UnreadConsole(stderr=True).status("Checking the data and the model..."):
            check_device(point, server)
            checkup = _examined(point.config, server)
            if is_wrong(checkup.findings):
                return checkup
            return Checkup((*checkup.findings, _accumulated(point.config, server), _would_start(point, server)))


def _examined(config: RunConfig, server: WarmServer) -> Checkup:
    try:
        found = reply_of(server, run_trials, config, doing="passing a few examples")
    except BadRequest as error:  # the process died
        return Checkup((wrong("process", str(error), "run the model outside batchlab, to see where it fails"),))
    if isinstance(found, Failed):
        raise BadRequest(found.reason)
    return found


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
    if found.same:
        return ok(name, f"{MICRO_BATCHES} micro-batches give the gradient of the whole batch, {_difference(found)}")
    causes = ", ".join(dict.fromkeys(cause.what for cause in found.causes)) or "no module by itself"
    return better(
        name,
        f"{MICRO_BATCHES} micro-batches give another gradient than the whole batch ({causes}; {_difference(found)})",
        more,
    )


def _difference(found: Findings) -> str:
    return f"relative difference {found.deciding.worst:.1g} in {found.deciding.dtype}"


def _would_start(point: Point, server: WarmServer) -> Finding:
    """The checks of a sweep before its first point, which cover more than the trials."""
    try:
        check_grid([point], server)
    except BadRequest as error:
        return wrong(
            "sweep", str(error).removesuffix(SEE_CHECK), "fix this first: a run with these options would not start"
        )
    return ok("sweep", "a run with these options would start")
