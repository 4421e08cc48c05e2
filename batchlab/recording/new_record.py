"""The initial record of a run, made by the process that trains it, or by the sweep if no process started."""

from typing import Any

from batchlab.config import RunConfig, to_dict
from batchlab.recording.files import now_utc
from batchlab.recording.masking import masked, masked_overrides
from batchlab.records import RunIdentity, RunRecord, RunStatus


def new_record(config: RunConfig, identity: RunIdentity, status: RunStatus, **more: Any) -> RunRecord:
    """A record of the run that starts now: its config, with secrets masked, and `more` fields."""
    return RunRecord(
        run_id=identity.run_id,
        study=identity.study,
        status=status,
        config=masked(to_dict(config)),
        seed=config.seed,
        batch_size=config.batch_size,
        overrides=tuple(masked_overrides(identity.overrides)),
        micro_batch_sizes=config.micro_batch_sizes,
        accumulate=len(config.micro_batch_sizes),
        **{"started_at": now_utc(), **more},
    )
