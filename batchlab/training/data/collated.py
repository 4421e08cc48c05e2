"""A batch that the user's `collate` made: its size is known, because it cannot be told from its tensors."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Collated:
    """What the task's `collate` returned for a number of examples."""

    content: Any
    examples: int


def content(batch: Any) -> Any:
    """The batch as the task's functions take it."""
    return batch.content if isinstance(batch, Collated) else batch
