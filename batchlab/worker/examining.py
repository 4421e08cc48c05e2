"""The child's side of `batchlab check` and `batchlab verify`. Imports torch only in the child."""

from collections.abc import Iterator
from dataclasses import replace

from batchlab.config import RunConfig, to_dict
from batchlab.recording.masking import concealed
from batchlab.records import RunStatus
from batchlab.worker.check.findings import Doing, Finding, Rest
from batchlab.worker.messages import Failed
from batchlab.worker.verify.findings import Findings


def run_trials(config: RunConfig) -> Iterator[Finding | Rest | Doing | Failed]:
    """The findings of `check` as each is known, and what is done before each; or why there are no more."""
    from batchlab.training.devices.out_of_memory import how_it_failed
    from batchlab.worker.check.examination import trials

    values = to_dict(config)
    try:
        for found in trials(config):
            if isinstance(found, Finding):
                found = replace(found, what=concealed(found.what, values), advice=concealed(found.advice, values))
            yield found
    except (Exception, SystemExit) as error:
        yield Failed(concealed(how_it_failed(error)[1], values))


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
