"""The part of an option's value that distinguishes runs: two ways to request the same thing become one value."""

from collections.abc import Mapping
from typing import Any


def device_kind(device: Any) -> Any:
    """`cuda` for `cuda:3`: the index of the GPU is not a setting of a run. The GPU itself is in its environment."""
    return device.partition(":")[0] if isinstance(device, str) else device


def which_data(group: Any) -> Any:
    """The keys of the data group that determine the data: all but `download`, for data sets that ship with batchlab.

    `folder` is one of them: another folder may hold fewer examples. In a user's own group every key counts.
    """
    if not isinstance(group, Mapping) or not str(group.get("_target_")).startswith("batchlab.data."):
        return group
    return {key: value for key, value in group.items() if key != "download"}


def before_added_keys(group: Any) -> Any:
    """The model group without the keys that were added after the first runs, where they are null."""
    if not isinstance(group, Mapping):
        return group
    own = str(group.get("_target_")).startswith("batchlab.models.")  # a user's model may mean something else by `norm`
    later = ("ghost_batch", "norm") if own else ("ghost_batch",)
    return {key: value for key, value in group.items() if key not in later or value is not None}


def micro_batches(batch_size: int, accumulate: int | None, micro_batch_size: int | None) -> tuple[int, int]:
    """The size of a step's first micro-batch, which no later one exceeds, and their number."""
    largest = micro_batch_size or -(-batch_size // (accumulate or 1))
    return largest, -(-batch_size // largest)
