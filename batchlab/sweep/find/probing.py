"""Runs each probe in a separate process, forked from the warm server like those of points."""

import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

from batchlab.config import RunConfig
from batchlab.host.exit_status import classify, oom_kill_count
from batchlab.records import RunStatus
from batchlab.science.memory.largest_fit import Outcome, Probe
from batchlab.science.memory.memory_model import Account
from batchlab.sweep.processes.attempt import WEDGED
from batchlab.sweep.processes.server import ENDS_WITHIN, WarmServer, ended
from batchlab.worker.messages import Probed, ProbeRequest
from batchlab.worker.probing import HEADROOM, work

SECONDS = 0.3  # of further timed steps


class Prober:
    """Tries sizes of one configuration, each in a fresh process."""

    def __init__(self, config: RunConfig, server: WarmServer, *, limit: int | None, exact: bool, log: Path) -> None:
        """`limit` in bytes, of which `HEADROOM` is reserved; None: CUDA's free memory. `exact`: see `worker.probe`."""
        self.config, self.server, self.exact, self.log = config, server, exact, log
        self.allowed = None if limit is None else int(limit * (1 - HEADROOM))
        self.account: Account | None = None  # of the last probe that ran

    def __call__(self, size: int, seconds: float = SECONDS) -> Probe:
        """Tries `size`; if the process dies or takes longer than `timeout`, that is the outcome."""
        request = ProbeRequest(self.config, size, self.allowed, self.exact, seconds)
        kills_before = oom_kill_count()
        process, connection = self.server.start(work, request, self.log)
        try:
            reply = _received(connection, process.sentinel, self.config.timeout)
            if reply is None and process.is_alive():
                return self._without_reply(size, Outcome.FAILED, f"took longer than timeout={self.config.timeout:g} s")
        finally:
            process.kill()  # not needed any more; and Ctrl-C leaves no orphan
            wedged = not ended(process)
            connection.close()
        if reply is not None:
            self.account = reply.account or self.account
            return reply.probe
        if wedged:
            return self._without_reply(size, Outcome.FAILED, WEDGED)
        code, kills = process.exitcode, oom_kill_count() - kills_before
        status, reason = classify(1 if code is None else code, stopped_by_us=False, oom_kills=kills)
        return self._without_reply(size, Outcome.OOM if status is RunStatus.OOM else Outcome.FAILED, reason)

    def _without_reply(self, size: int, outcome: Outcome, reason: str) -> Probe:
        accumulate = len(self.config.micro_batch_sizes)
        return Probe(size=size, outcome=outcome, accumulate=accumulate, reason=reason, allowed_bytes=self.allowed)


def _received(connection: Connection, sentinel: int, timeout: float | None) -> Probed | None:
    """The child's reply; None if it ends without one, or takes longer than `timeout` seconds."""
    ends = None if timeout is None else time.monotonic() + timeout
    while True:
        ready = wait([connection, sentinel], None if ends is None else max(0.0, ends - time.monotonic()))
        if connection not in ready:
            return None
        try:
            reply: Probed = connection.recv()
        except (EOFError, OSError):
            wait([sentinel], ENDS_WITHIN)
            return None
        return reply
