"""The status of a run that ended with an error, and the reason, by the phase in which it happened."""

from batchlab.records import RunStatus
from batchlab.training.devices.out_of_memory import how_it_failed
from batchlab.training.phase import BUILDING, CHECKPOINT, DATA, TRAINING

# By phase: what did not fit, and what would help.
SENTENCES = {
    DATA: (
        "the data does not fit in memory",
        "this does not depend on the batch size; free some memory, or provide the set as a map-style Dataset, which is "
        "read during training if it is larger than 4 GiB",
    ),
    BUILDING: (
        "the model and its optimizer do not fit in memory",
        "this does not depend on the batch size; use a smaller model, or a device with more memory",
    ),
    CHECKPOINT: ("the checkpoint does not fit in the host's memory", "so the run cannot be resumed on this machine"),
}


def how_it_ended(error: BaseException, phase: str) -> tuple[RunStatus, str]:
    """The run status for `error` in `phase`, and the reason in one line.

    `oom` only if training itself ran out of memory: that is a result of the batch size. Anything else that does not
    fit is a failure, which would happen at any batch size.
    """
    status, reason = how_it_failed(error)
    if status is not RunStatus.OOM:
        return status, reason
    if phase in TRAINING:
        return status, f"in {phase}: {reason}"
    what, advice = SENTENCES.get(phase, (f"memory ran out in {phase}", "this does not depend on the batch size"))
    return RunStatus.FAILED, f"{what} ({reason}): {advice}"
