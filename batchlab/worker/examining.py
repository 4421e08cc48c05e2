"""The child's side of `batchlab check` and `batchlab verify`. Imports torch only in the child."""

from dataclasses import replace

from batchlab.config import RunConfig, to_dict
from batchlab.recording.masking import concealed
from batchlab.records import RunStatus
from batchlab.worker.check.findings import Checkup
from batchlab.worker.messages import Failed
from batchlab.worker.verify.findings import Findings


def run_trials(config: RunConfig) -> Checkup | Failed:
    """The findings of `check`, or why there are none."""
    from batchlab.training.devices.out_of_memory import how_it_failed
    from batchlab.worker.check.examination import examine

    values = to_dict(config)
    try:
        found = examine(config)
        hidden = tuple(
            replace(f, what=concealed(f.what, values), advice=concealed(f.advice, values)) for f in found.findings
        )
        return replace(found, findings=hidden)
    except (Exception, SystemExit) as error:
        return Failed(concealed(how_it_failed(error)[1], values))


def compare_gradients(config: RunConfig) -> Findings | Failed:
    """The findings of `verify`, or why there are none."""
    from batchlab.training.devices.out_of_memory import how_it_failed
    from batchlab.worker.verify.examination import examine

    try:
        return examine(config)
    except (Exception, SystemExit) as error:
        status, reason = how_it_failed(error)
        if status is RunStatus.OOM:
            reason = f"the whole batch does not fit ({reason}): use a smaller batch_size with the same accumulate"
        return Failed(concealed(reason, to_dict(config)))
