"""The interface of a set that is not on the device."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from batchlab.task import Batch
from batchlab.training.data.order import SampledOrder


class Stream(ABC):
    """A set whose examples are moved to the device only when they are needed: read one by one (`streaming.Streamed`),
    or gathered from tensors on the host (`host_rows.HostRows`).

    Instruments and validation read an example identically each time; training reads with `row`.
    """

    collates = False  # whether its batches are `Collated`: made as a whole of exactly their examples, never cut
    own_batches = False  # whether the user's loader makes the training batches, each micro-batch as a whole

    @abstractmethod
    def __len__(self) -> int:
        """Examples."""

    @abstractmethod
    def gather(self, index: Tensor) -> Batch:
        """The examples at `index`, on the device."""

    @abstractmethod
    def slices(self, size: int) -> Iterator[Batch]:
        """The whole set in order, in pieces of `size`; the last may be smaller."""

    @abstractmethod
    def subset(self, index: Tensor) -> "Stream":
        """The examples at `index` as a new set."""

    @abstractmethod
    def row(
        self, seed: int, start: int, stop: int, sizes: Sequence[int], order: SampledOrder | None = None
    ) -> Iterator[Batch]:
        """Examples `start` to `stop` of the data order, in batches of `sizes`, repeated; reading ahead starts at the
        call. `order` is the task's own, if it has one."""

    @abstractmethod
    def piece(self, batch_size: int, most_bytes: int) -> int:
        """How many examples `row` should give at once: whole batches, of not much more than `most_bytes` in all."""

    @abstractmethod
    def example_bytes(self) -> int:
        """Bytes of one example, at least 1."""


def order_in_words(data: Any, order: SampledOrder | None, micro_batch_sizes: Sequence[int]) -> str | None:
    """The order of the training examples; None if it is a permutation of the set in each epoch."""
    if isinstance(data, Stream) and data.own_batches:
        return (
            f"that of the task's loader: {len(data):,} examples a pass, in batches of {micro_batch_sizes[0]:,}, with a "
            "seed for each pass that depends on the run's seed"
        )
    if order is None:
        return None
    return f"the task's sampler: {order.length:,} of {order.of:,} examples an epoch"
