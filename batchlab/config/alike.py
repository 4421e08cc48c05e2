"""What in the value of an option tells runs apart: two ways to ask for the same thing are made one."""

from collections.abc import Mapping
from typing import Any


def device_kind(asked: Any) -> Any:
    """`cuda` for `cuda:3`: which of the GPUs it was is no setting of a run. What it was is in its environment."""
    return asked.partition(":")[0] if isinstance(asked, str) else asked


def which_data(group: Any) -> Any:
    """What says which data a run has, of its data group: all but whether missing files of ours may be fetched.

    `folder` says it too: there may be fewer examples in another. In a user's own group every key does.
    """
    if not isinstance(group, Mapping) or not str(group.get("_target_")).startswith("batchlab.data."):
        return group
    return {key: value for key, value in group.items() if key != "download"}


def before_added_keys(group: Any) -> Any:
    """The model group without the keys that were added when there were runs, where they are null."""
    if not isinstance(group, Mapping):
        return group
    own = str(group.get("_target_")).startswith("batchlab.models.")  # what `norm` means in a user's own is the user's
    later = ("ghost_batch", "norm") if own else ("ghost_batch",)
    return {key: value for key, value in group.items() if key not in later or value is not None}


def micro_batches(batch_size: int, accumulate: int | None, micro_batch_size: int | None) -> tuple[int, int]:
    """The size of a step's first micro-batch, which no later one exceeds, and their number."""
    largest = micro_batch_size or -(-batch_size // (accumulate or 1))
    return largest, -(-batch_size // largest)
