"""A batch that the user's `collate` made, with the number of its examples, which its tensors do not show."""

from dataclasses import dataclass
from typing import Any

from batchlab.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Collated:
    """What the task's `collate` returned for a number of examples."""

    content: Any
    examples: int


class IndivisibleBatch(BadRequest):
    """Single examples of a batch were requested, but the task's `collate` made it as a whole."""

    def __init__(self) -> None:
        super().__init__(
            "a batch that the task's collate made cannot be divided into its examples: what needs single examples "
            "of a batch is not available for this task"
        )


def content(batch: Any) -> Any:
    """The batch as the task's functions take it."""
    return batch.content if isinstance(batch, Collated) else batch
