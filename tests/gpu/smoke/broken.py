"""Checks that a run whose device breaks keeps its record, with the reason."""

import os
import tempfile
from pathlib import Path
from typing import Any

from smoke.runner import check, is_real_gpu, wants
from smoke.tasks import configured, own_files


@check("a label out of range, a device-side assert: the record keeps the first error, its likely cause, the steps")
def device_side_assert(device: str) -> dict[str, Any]:
    from batchlab.records import RunIdentity
    from batchlab.worker.execute import run

    with tempfile.TemporaryDirectory() as scratch:
        words = own_files(Path(scratch))
        # One label of 512 is wrong, and the data order is fixed: some steps are made before the device breaks.
        config = configured(device, *words, "+data.wrong_from=511", "batch_size=8", "epochs=1", "log_every=8")
        record = run(config, Path(scratch, "run"), RunIdentity("one", "study", "group"))
        os.chdir("/")
    found = {"status": str(record.status), "reason": record.reason, "steps": record.steps}
    wants(record.status == "failed", "it did not fail", **found)
    wants(record.steps > 0 and record.train_seconds > 0, "the steps before it are lost", **found)
    if is_real_gpu(device):
        wants("device=cpu" in record.reason, "the reason does not say how to see the cause", **found)
    return found
