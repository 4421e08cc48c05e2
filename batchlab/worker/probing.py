"""The child's side of a probe: one micro-batch size tried in a process of its own."""

from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from batchlab.host.lease import leased
from batchlab.recording import disk
from batchlab.worker.entry import die_with_parent, gpu_of, log_to, send, stop_flag
from batchlab.worker.messages import Probed, ProbeRequest

HEADROOM = 0.05  # of the limit, which no probe may use: a size that just fits does not fit tomorrow
STEPS = 3  # the optimizer makes its state in the first


def work(connection: Connection, request: ProbeRequest, log: Path) -> None:
    """Makes one probe and sends what came of it; in the child."""
    from batchlab.training.devices.process_memory import give_freed_pages_back

    if request.exact:
        give_freed_pages_back()  # before there is a second thread, which would get a heap of its own
    die_with_parent()
    stop_flag()  # deaf to Ctrl-C, which is the parent's to pass on: it ends this process
    disk.make_folder(log.parent)
    log_to(log)
    from batchlab.worker.probe import probe

    device = request.config.device
    with leased(device, gpu_of(device)) as lease:
        made, account = probe(
            request.config,
            request.size,
            allowed=request.allowed,
            headroom=HEADROOM,
            exact=request.exact,
            steps=STEPS,
            seconds=request.seconds,
        )
        send(connection, Probed(replace(made, shared_machine=lease.shared()), account))
