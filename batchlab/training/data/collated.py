"""A batch that the user's `collate` made, with the number of its examples, which its tensors do not show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from batchlab.errors import BadRequest

Piece = tuple[list[int], list[int]]  # indices of the examples to read, and the random seed of each; []: unseeded


@dataclass(frozen=True, slots=True)
class Collated:
    """What the task's `collate` returned for a number of examples."""

    content: Any
    examples: int

    def chosen(self, positions: Sequence[int]) -> "Collated":
        """A batch of the examples at these positions alone."""
        del positions
        raise IndivisibleBatch


class Divisible(Collated):
    """One that knows which examples it was made of, so that some of them can be read and collated anew. A changed copy
    of it is indivisible: what was changed in it would be lost."""

    __slots__ = ("_piece", "_read")
    _piece: Piece
    _read: Callable[[Piece], Collated]

    def __init__(self, read: Callable[[Piece], Collated], batch: Collated, piece: Piece) -> None:
        Collated.__init__(self, batch.content, batch.examples)
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_piece", piece)

    def chosen(self, positions: Sequence[int]) -> Collated:
        if not hasattr(self, "_piece"):  # a copy has only the fields
            raise IndivisibleBatch
        which, seeds = self._piece
        some = [which[i] for i in positions], [seeds[i] for i in positions]
        return Divisible(self._read, self._read(some), some)


class IndivisibleBatch(BadRequest):
    """Single examples of a batch were requested, but the task's `collate` made it as a whole."""

    def __init__(self) -> None:
        super().__init__(
            "a batch that the task's collate made, and that was changed afterwards, cannot be divided into its "
            "examples: what needs single examples of such a batch is not available for this task"
        )


def content(batch: Any) -> Any:
    """The batch as the task's functions take it."""
    return batch.content if isinstance(batch, Collated) else batch
