"""What an error says of a run: its status and the reason, by where it happened."""

from batchlab.records import RunStatus
from batchlab.training.devices.out_of_memory import how_it_failed
from batchlab.training.phase import BUILDING, CHECKPOINT, DATA, TRAINING

# What did not fit, and what would help.
SENTENCES = {
    DATA: (
        "the data does not fit the memory",
        "the batch size has no part in it; free some memory, or give the set as a map-style Dataset, which is read "
        "while it is trained on where it is larger than 4 GiB",
    ),
    BUILDING: (
        "the model and its optimizer do not fit the memory",
        "the batch size has no part in it; use a smaller model, or a device with more memory",
    ),
    CHECKPOINT: ("the checkpoint does not fit the memory of the host", "so the run cannot be resumed on this machine"),
}


def how_it_ended(error: BaseException, phase: str) -> tuple[RunStatus, str]:
    """The status that `error` in `phase` means, and the reason in one line.

    `oom` only where training itself ran out of memory: that is a result of the batch size. What else does not fit is
    a failure, and would fail at any batch size.
    """
    status, reason = how_it_failed(error)
    if status is not RunStatus.OOM:
        return status, reason
    if phase in TRAINING:
        return status, f"in {phase}: {reason}"
    what, advice = SENTENCES.get(phase, (f"memory ran out in {phase}", "the batch size has no part in it"))
    return RunStatus.FAILED, f"{what} ({reason}): {advice}"
