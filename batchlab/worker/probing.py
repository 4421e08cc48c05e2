"""The child's side of a probe: tries one micro-batch size in a separate process."""

from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from batchlab.host.lease import leased
from batchlab.recording import disk
from batchlab.worker.entry import die_with_parent, gpu_of, log_to, send, stop_flag
from batchlab.worker.messages import Probed, ProbeRequest

HEADROOM = 0.05  # share of the limit that is kept free: a size that just fits may not fit next time
STEPS = 3  # the optimizer creates its state in the first one


def work(connection: Connection, request: ProbeRequest, log: Path) -> None:
    """In the child: makes one probe and sends its result."""
    from batchlab.training.devices.process_memory import give_freed_pages_back

    if request.exact:
        give_freed_pages_back()  # before there is a second thread, which would get a separate heap
    die_with_parent()
    stop_flag()  # ignores Ctrl-C: the parent handles it and ends this process
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
