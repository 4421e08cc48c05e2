"""`batchlab verify`: compares both gradients of one point in a separate process."""

import sys

from batchlab.errors import BadRequest
from batchlab.sweep.checks import check_grid, or_on_cpu, reply_of
from batchlab.sweep.points import Point, gpu_of
from batchlab.sweep.processes.server import WarmServer
from batchlab.sweep.summary.progress import UnreadConsole
from batchlab.worker.examining import compare_gradients
from batchlab.worker.messages import Failed
from batchlab.worker.verify.findings import Findings
from batchlab.worker.verify.wording import lines


def verify(point: Point) -> int:
    """Prints the findings; 0 if both gradients are the same, else 1. BadRequest if there is only one micro-batch."""
    config = point.config
    if len(config.micro_batch_sizes) == 1:
        raise BadRequest(
            "verify compares the gradient of a batch with that of its micro-batches, but the batch is one micro-batch: "
            "add accumulate=4 or micro_batch_size=..."
        )
    found, chosen = or_on_cpu([point], lambda points: _compared(points[0]))
    if isinstance(found, Failed):
        raise BadRequest(found.reason)
    config = chosen[0].config
    sys.stdout.write("".join(f"{line}\n" for line in lines(found, config)))
    return 0 if found.same else 1


def _compared(point: Point) -> Findings | Failed:
    with WarmServer(gpu_of([point])) as server:
        server.warm_up()
        with UnreadConsole(stderr=True).status("Comparing the gradients..."):
            check_grid([point], server)
            return reply_of(server, compare_gradients, point.config, doing="comparing the gradients")
