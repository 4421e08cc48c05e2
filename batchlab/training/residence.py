"""Bringing a set to where it is trained on. Small ones live on the device; streaming large ones comes here later."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from batchlab.errors import BadRequest
from batchlab.task import Batch
from batchlab.training.batches import rebuilt, tensors

RESIDENT_BYTES = 4 * 2**30  # a set read through a Dataset may take this much


def resident(data: Any, device: torch.device, *, name: str) -> Batch:
    """`data` (a tuple or dict of tensors, or a map-style Dataset of examples) as tensors on `device`.

    `name` is `train` or `val`, for messages. Raises BadRequest where the set is empty, its tensors disagree on the
    number of examples, or a Dataset is too large to be held or gives other values when read again (augmentation).
    """
    if not isinstance(data, Mapping | tuple | list):
        data = _read(data, name)
    held = tensors(data)
    if not held or not all(isinstance(t, Tensor) and t.dim() > 0 for t in held):
        kinds = ", ".join(type(t).__name__ for t in held) or "nothing"
        raise BadRequest(f"the task's {name} holds {kinds}: it must be tensors whose first axis is the example")
    sizes = {len(t) for t in held}
    if sizes == {0} or len(sizes) > 1:
        raise BadRequest(f"the task's {name} has tensors of {sorted(sizes)} examples: they must agree, and be above 0")
    return rebuilt(data, [t.to(device) for t in held])


def _read(dataset: Any, name: str) -> Any:
    from torch.utils.data import default_collate

    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise BadRequest(
            f"the task's {name} is a {type(dataset).__name__}: give a tuple or dict of tensors, or a map-style Dataset"
        )
    if len(dataset) == 0:
        raise BadRequest(f"the task's {name} is an empty {type(dataset).__name__}: it must hold examples")
    first, again = default_collate([dataset[0]]), default_collate([dataset[0]])
    if not isinstance(first, Mapping | Sequence) or isinstance(first, str):
        raise BadRequest(
            f"the task's {name} gives examples of type {type(dataset[0]).__name__}: give a tuple or a dict"
        )
    bad = [type(t).__name__ for t in tensors(first) if not isinstance(t, Tensor)]
    if bad:
        raise BadRequest(f"the task's {name} gives examples that hold {bad[0]}: they must hold tensors or numbers")
    size = sum(t.nbytes for t in tensors(first)) * len(dataset)
    if size > RESIDENT_BYTES:
        raise BadRequest(
            f"the task's {name} would take {size / 2**30:.1f} GiB as tensors, and batchlab keeps a set on the device "
            f"up to {RESIDENT_BYTES / 2**30:.0f} GiB: give fewer examples (streaming is not built yet)"
        )
    if not all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True)):
        raise BadRequest(
            f"the task's {name} gives another example each time it is read (augmentation?), and it is read once: "
            "take the random transform out"
        )
    return default_collate([dataset[i] for i in range(len(dataset))])
