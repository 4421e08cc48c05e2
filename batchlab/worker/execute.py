"""One run, config -> record: opens its log, assembles it, restores its checkpoint, and trains it."""

from collections.abc import Callable
from pathlib import Path

from batchlab.config import RunConfig, SweepConfig
from batchlab.instruments.panel import build_instruments
from batchlab.records import RunIdentity, RunRecord
from batchlab.training import assembly
from batchlab.training.passes.reduction import about, refuse_changed_objective
from batchlab.training.phase import DATA, Phase, ignore
from batchlab.worker.equal_builds import refuse_other_data
from batchlab.worker.run_log import Listener, run_log


def run(
    config: RunConfig,
    folder: Path,
    identity: RunIdentity,
    *,
    sweep: SweepConfig | None = None,
    listener: Listener | None = None,
    stopping: Callable[[], bool] = lambda: False,
    shared: Callable[[], bool] = lambda: False,
    announce: Callable[[str], None] = ignore,
) -> RunRecord:
    """Trains one point in this process, from its newest checkpoint, and leaves its folder complete, however it ends.

    Running out of memory, divergence and errors of the user's code are recorded as results, with the traceback of an
    error on stderr. With `force` in `sweep` it starts from its first step. `stopping` is called between steps,
    `shared` (whether another point used the machine) at the end, and `announce` as `Phase` says. Raises RunIsHeld if
    another process holds the folder, and StorageError if the disk cannot be written: then the last stored record
    remains.
    """
    with run_log(folder, config, identity, sweep=sweep, listener=listener or Listener()) as log:
        if log.is_final:
            return log.record
        phase = Phase(announce=announce)
        with log.until_it_ends(phase, shared):
            device = assembly.prepare_process(config)
            phase.name = DATA
            data = assembly.build_known_data(config, device)
            refuse_other_data(config, data, identity.data_fingerprint)
            session = assembly.assemble(config, data, build_instruments, phase=phase, note=log.note)
            refuse_changed_objective(config, session.state.task)
            log.restore(session)
            for fact in about(config, session.state.task):
                if fact not in log.record.notes:
                    log.note(fact)

            def enough() -> bool:
                return config.stop_at_target and log.target_reached

            with log.counting(session):
                for measurement in session.train(log.checkpoints(session), stopping=stopping, enough=enough):
                    log.take(measurement)
                if session.state.examples < session.plan.examples and not enough():
                    log.interrupt(session)
        return log.record
